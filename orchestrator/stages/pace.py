"""How much of a stream's time lies between two of its frames.

Frames are lost on the way: thinned out under load, damaged, or all of them during an outage. Rules
that speak of time must not take those on both sides of a gap for neighbours, and the clock on the
wall says nothing of a recording. The frames' own indices tell.
"""


class Pace:
    """Counts a stream's frames, those that were lost included.

    Clients may count in steps of their own: the shortest step so far is that of one frame.
    """

    def __init__(self) -> None:
        self._index: int | None = None
        self._stride: int | None = None

    def advance(self, frame_index: int) -> int:
        """Take the next frame; return by how many frames it follows the last one, 1 or more.

        Args:
            frame_index: Its index. One that does not rise is of a resumed stream that repeats
                frames, and counts 1.
        """
        step = 0 if self._index is None else frame_index - self._index
        self._index = frame_index
        if step <= 0:
            return 1
        self._stride = step if self._stride is None else min(self._stride, step)
        return round(step / self._stride)
