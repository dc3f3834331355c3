"""How long the stages take, as measured lately: what a frame still needs until its answer."""

import time

from orchestrator.overload.window import MovingWindow

_ROUTE = {
    "decode": ("decode", "detect", "track"),
    "detect": ("detect", "track"),
    "track": ("track",),
}
"""The stages that a frame goes through one after the other, from each one on."""
_SIDE_BY_SIDE = ("identify", "number")
"""Last of all, and at the same time."""
_NEXT = {"decode": "detect", "detect": "track", "track": "identify"}
_MOSTLY = 0.75
"""Share of the frames that make it in the expected time."""
_LEAST_SHARE = 0.5
"""However long the later stages take, a stage may use this share of the time that is left."""


class Profile:
    """Measured stage times of all streams of this process.

    Its memory is short, so that it learns as fast that stages became quicker as that they became
    slower; with no news for the whole window it expects nothing, and frames go through.

    Args:
        window_s: How long a measurement counts, in seconds.
    """

    def __init__(self, window_s: float) -> None:
        self._stages = {
            stage: MovingWindow(window_s) for stage in (*_ROUTE["decode"], *_SIDE_BY_SIDE)
        }

    def observe(self, stage_seconds: dict[str, float]) -> None:
        """Take note of one frame's times, in seconds by stage; other names are ignored."""
        now = time.monotonic()
        for stage, window in self._stages.items():
            if stage in stage_seconds:
                window.add(stage_seconds[stage], now)

    def clear(self) -> None:
        """Forget all measurements."""
        for window in self._stages.values():
            window.clear()

    def seconds(self, stage: str) -> float:
        """Return the time in which a stage mostly ends, in seconds; 0 while unknown."""
        return self._stages[stage].quantile(_MOSTLY, time.monotonic()) or 0.0

    def remaining(self, stage: str) -> float:
        """Return the expected time from the beginning of a stage to the answer, in seconds."""
        last = max(self.seconds(side) for side in _SIDE_BY_SIDE)
        return sum(self.seconds(later) for later in _ROUTE.get(stage, ())) + last

    def stage_deadline(self, stage: str, deadline: float) -> float:
        """Return when a stage must have ended for the later ones to make the frame's deadline.

        Args:
            stage: Name of the stage, which begins now.
            deadline: Of the frame, in seconds of `time.monotonic`; infinite for none.
        """
        if stage not in _NEXT:
            return deadline
        now = time.monotonic()
        return max(deadline - self.remaining(_NEXT[stage]), now + _LEAST_SHARE * (deadline - now))
