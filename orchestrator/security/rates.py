"""A tenant's rates: token buckets on the monotonic clock, shared by all its streams."""

import asyncio
import time
from collections.abc import Callable

_BURST_S = 1.0
"""How much of a rate may be used at once, as seconds of it."""
_LEAST_BURST = 2.0
"""Frames that a slow rate may use at once."""


class TokenBucket:
    """Fills at a rate and may go into debt, so that one large frame is late but never stuck.

    Args:
        rate: Tokens per second, more than 0.
        least_burst: Least number of tokens that fit.
        clock: Seconds that never go back.
    """

    def __init__(
        self, rate: float, least_burst: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._most = max(rate * _BURST_S, least_burst)
        self._level = self._most
        self._clock = clock
        self._filled = clock()

    def take(self, tokens: float) -> None:
        """Take tokens, into debt if need be."""
        self._fill()
        self._level -= tokens

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left now."""
        self._fill()
        return self._level <= 0

    def seconds_until_half(self) -> float:
        """Return the time until the bucket is half full, in seconds; 0 if it is."""
        self._fill()
        return max(0.0, (self._most / 2 - self._level) / self._rate)

    def _fill(self) -> None:
        now = self._clock()
        self._level = min(self._most, self._level + (now - self._filled) * self._rate)
        self._filled = now


class FrameRates:
    """Holds the frames of one tenant to its rates of frames and bytes.

    Live frames come first: they pass while anything is left, lossless ones wait until half is left.

    Args:
        frames_per_s: Most frames a second; None is no limit.
        bytes_per_s: Most bytes of `Frame.data` a second; None is no limit.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        frames_per_s: float | None,
        bytes_per_s: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._buckets: dict[str, TokenBucket] = {}
        if frames_per_s is not None:
            self._buckets["frames_per_s"] = TokenBucket(frames_per_s, _LEAST_BURST, clock)
        if bytes_per_s is not None:
            self._buckets["bytes_per_s"] = TokenBucket(bytes_per_s, clock=clock)
        self._turn = asyncio.Lock()

    def exceeded(self, byte_count: int) -> str | None:
        """Let a frame pass and return None, or return the name of the rate that it exceeds."""
        for name, bucket in self._buckets.items():
            if bucket.is_empty:
                return name
        self._take(byte_count)
        return None

    async def wait(self, byte_count: int) -> None:
        """Hold a lossless frame back until it may pass; frames of several streams take turns."""
        async with self._turn:
            # Again after each sleep: live frames may have come first. Only time fills a bucket.
            while (seconds := self._seconds_to_wait()) > 0:  # noqa: ASYNC110
                await asyncio.sleep(seconds)
            self._take(byte_count)

    def _seconds_to_wait(self) -> float:
        return max((bucket.seconds_until_half() for bucket in self._buckets.values()), default=0.0)

    def _take(self, byte_count: int) -> None:
        for name, tokens in (("frames_per_s", 1.0), ("bytes_per_s", float(byte_count))):
            if name in self._buckets:
                self._buckets[name].take(tokens)
