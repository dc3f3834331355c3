"""A tenant's rates: token buckets on the monotonic clock, shared by all its streams.

Their levels lie in the tenant's account, so that streams in several worker processes share them:
the clock is the same in all processes of a machine.
"""

import asyncio
import time
from collections.abc import Callable

from orchestrator.ledger import Account, Numbers, new_numbers

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
        state: Where the level is kept, and when it was that; None keeps them here. Two zeros, a
            bucket that was empty when the clock began, are a full one in practice.
    """

    def __init__(
        self,
        rate: float,
        least_burst: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        *,
        state: "Numbers | None" = None,
    ) -> None:
        self._rate = rate
        self._state = new_numbers(2) if state is None else state
        self._most = max(rate * _BURST_S, least_burst)
        self._clock = clock

    def take(self, tokens: float) -> None:
        """Take tokens, into debt if need be."""
        self._state[0] = self._fill() - tokens

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left now."""
        return self._fill() <= 0

    def seconds_until_half(self) -> float:
        """Return the time until the bucket is half full, in seconds; 0 if it is."""
        return max(0.0, (self._most / 2 - self._fill()) / self._rate)

    def _fill(self) -> float:
        level, filled = self._state
        now = self._clock()
        level = min(self._most, level + (now - filled) * self._rate)
        self._state[0], self._state[1] = level, now
        return level


class FrameRates:
    """Holds the frames of one tenant to its rates of frames and bytes.

    Live frames come first: they pass while anything is left, lossless ones wait until half is left.

    Args:
        frames_per_s: Most frames a second; None is no limit.
        bytes_per_s: Most bytes of `Frame.data` a second; None is no limit.
        account: The tenant's.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        frames_per_s: float | None,
        bytes_per_s: float | None,
        account: Account,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        frames, octets = account.levels[:2], account.levels[2:]
        self._account = account
        self._buckets: dict[str, TokenBucket] = {}
        if frames_per_s is not None:
            bucket = TokenBucket(frames_per_s, _LEAST_BURST, clock, state=frames)
            self._buckets["frames_per_s"] = bucket
        if bytes_per_s is not None:
            self._buckets["bytes_per_s"] = TokenBucket(bytes_per_s, clock=clock, state=octets)
        self._queue = asyncio.Lock()

    def exceeded(self, byte_count: int) -> str | None:
        """Let a frame pass and return None, or return the name of the rate that it exceeds."""
        with self._account.turn():
            for name, bucket in self._buckets.items():
                if bucket.is_empty:
                    return name
            self._take(byte_count)
        return None

    async def wait(self, byte_count: int) -> None:
        """Hold a lossless frame back until it may pass; frames of several streams take turns."""
        async with self._queue:
            # Again after each sleep: other frames may have come first. Only time fills a bucket.
            while (seconds := self._pass_or_wait(byte_count)) > 0:  # noqa: ASYNC110
                await asyncio.sleep(seconds)

    def _pass_or_wait(self, byte_count: int) -> float:
        """Let a lossless frame pass and return 0, or return how long to wait, in seconds."""
        with self._account.turn():
            waits = (bucket.seconds_until_half() for bucket in self._buckets.values())
            seconds = max(waits, default=0.0)
            if not seconds:
                self._take(byte_count)
        return seconds

    def _take(self, byte_count: int) -> None:
        for name, tokens in (("frames_per_s", 1.0), ("bytes_per_s", float(byte_count))):
            if name in self._buckets:
                self._buckets[name].take(tokens)
