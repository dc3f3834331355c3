"""Which frames of a stream are awaited, and which indices a further one may have."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.types.frames import Frame, LostFrame


@dataclass(frozen=True, slots=True)
class Refused:
    """A frame that was turned away unread; it never held room."""

    lost: LostFrame


class Arrivals:
    """Frames from their arrival to their answer.

    Args:
        is_video: Whether frames are access units, which come in decoding order.

    Attributes:
        newest_index: The highest index expected so far; -1 for none.
    """

    def __init__(self, *, is_video: bool) -> None:
        self._is_video = is_video
        self._since: dict[int, float] = {}
        self._overtaking: dict[int, Refused] = {}
        """Units refused unread that wait for those which are shown before them."""
        self._answered_index = -1
        self.newest_index = -1

    def is_free(self, index: int) -> bool:
        """Whether a frame that arrives now may have an index."""
        if not self._is_video:
            return index > self.newest_index
        is_used = index in self._since or index in self._overtaking
        return index > self._answered_index and not is_used

    def expect(self, index: int) -> None:
        """Await the answer to a frame that arrives now."""
        self._since[index] = time.monotonic()
        self.newest_index = max(self.newest_index, index)

    def since(self, index: int) -> float:
        """Return when an awaited frame arrived, in seconds of `time.monotonic`."""
        return self._since[index]

    def settle(self, index: int) -> None:
        """An awaited frame is answered."""
        del self._since[index]
        self._answered_index = max(self._answered_index, index)

    def must_queue(self, refused: Refused) -> bool:
        """Whether a refused frame has a place among those that the decoder holds back."""
        return self._is_video and self.is_free(refused.lost.header.frame_index)

    def queue(self, refused: Refused) -> None:
        """Expect a refused frame back from the decoder when its turn has come."""
        self._overtaking[refused.lost.header.frame_index] = refused

    def awaited(self, decoded: Iterable[Frame | LostFrame]) -> list[Frame | LostFrame | Refused]:
        """Leave out pictures of frames that were decoded for the sake of others only."""
        return [
            self._overtaking.pop(index, picture)
            for picture in decoded
            for index in (picture.header.frame_index,)
            if index in self._since or index in self._overtaking
        ]
