"""When a replica is taken out of use, and for how long."""

import time
from collections.abc import Callable

from orchestrator.settings import TritonSettings

_FIRST_PROBE_S = 0.1


class Health:
    """One replica's record: failures in a row lead to ejections, and these grow while it flaps.

    Attributes:
        reason: Why it is out of use; empty while it is in use.
    """

    def __init__(
        self, settings: TritonSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._failures = 0
        self._ejections = 0
        self._out_s = 0.0
        self._out_until = 0.0
        self._back_at = 0.0
        self._probe_s = _FIRST_PROBE_S
        self.answered_at = clock()
        self.reason = "not yet found ready"

    @property
    def is_out(self) -> bool:
        """Whether the replica is out of use."""
        return bool(self.reason)

    @property
    def remaining_s(self) -> float:
        """Seconds until it may be probed again."""
        return max(0.0, self._out_until - self._clock())

    @property
    def silent_s(self) -> float:
        """Seconds since the last answer to a request, or since it was put in use."""
        return self._clock() - self.answered_at

    def answered(self) -> None:
        """The server gave an answer to a request, whether result or refusal."""
        self._failures = 0
        self.answered_at = self._clock()

    def failed(self) -> bool:
        """Count a request on which the replica failed; return whether those are too many."""
        self._failures += 1
        return self._failures >= self._settings.eject_after

    def eject(self, reason: str, *, is_hopeless: bool = False) -> None:
        """Take it out of use: twice as long as the last time, if that was lately.

        Args:
            reason: Why, for logs.
            is_hopeless: Whether only somebody else can mend it, so that it is tried most rarely.
        """
        now = self._clock()
        if now - self._back_at > self._out_s:  # was good for longer than it had been out
            self._ejections = 0
        longest = self._settings.max_ejection_s
        self._out_s = min(longest, self._settings.ejection_s * 2**self._ejections)
        if is_hopeless:
            self._out_s = longest
        self._ejections = min(self._ejections + 1, 16)
        self._out_until = now + self._out_s
        self.reason = reason

    def stay_out(self, reason: str) -> None:
        """It is still unfit, or was mended: ask soon, then at the usual interval.

        Whoever failed before serves the time out first: a model that dies as soon as it is loaded
        is not loaded anew without end.
        """
        self.reason = reason
        self._probe_s = min(2 * self._probe_s, self._settings.probe_interval_s)
        soon = self._clock() + self._probe_s
        self._out_until = max(self._out_until, soon) if self._ejections > 1 else soon

    def come_back(self) -> None:
        """Put it in use; after an ejection on trial: its first failure takes it out again."""
        self._failures = self._settings.eject_after - 1 if self._ejections else 0
        self._probe_s = _FIRST_PROBE_S
        self._back_at = self.answered_at = self._clock()
        self.reason = ""
