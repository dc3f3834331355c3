"""Which streams are let in: those that fit beside the ones that are served already."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from orchestrator.contracts import SAM2_TRACKER
from orchestrator.errors import OverloadedError
from orchestrator.ledger import Ledger
from orchestrator.overload.control import LoadControl
from orchestrator.overload.ladder import Level
from orchestrator.settings import Settings
from orchestrator.triton.client import TritonClient
from orchestrator.triton.snapshot import PoolSnapshot
from orchestrator.types.streams import StreamConfig
from orchestrator.video_decoding import MAX_HELD_FRAMES

_ASSUMED_PIXELS = 1920 * 1080
"""Size of frames whose stream does not say it."""
_LEAST_FRAME_RATE = 5.0
"""Fewer frames a second than this measure no cost."""
_SETTLED_S = 5.0
"""After that long the load of a live stream shows, in what is left out if it was too much."""
_EVERYBODY = "_everybody"
"""Account of all streams of a server; no tenant can be named so."""


def credit(config: StreamConfig, settings: Settings) -> int:
    """Return how many frames a stream's client may have under way."""
    held = MAX_HELD_FRAMES + 1 if config.encoding.is_video else 0
    return settings.stream.credit_frame_count + held


@dataclass(frozen=True, slots=True)
class _Admitted:
    """A stream that is open, and when it was let in, by `time.monotonic`."""

    config: StreamConfig
    at: float


class Admission:
    """Admits streams by what the models were measured to do, and by memory; one per process.

    What a frame costs each model is measured while nothing is degraded. As long as a cost or a
    capacity is unknown, it limits nothing; while no model has both, live streams are let in step by
    step. The tracker's slots are counted over all workers of the server.
    """

    def __init__(
        self, triton: TritonClient, control: LoadControl, settings: Settings, ledger: Ledger
    ) -> None:
        self._triton = triton
        self._control = control
        self._settings = settings
        self._everybody = ledger.account(_EVERYBODY)
        self._open: list[_Admitted] = []
        self._rows_per_frame: dict[str, float] = {}

    @contextmanager
    def admit(self, config: StreamConfig, *, is_resumed: bool = False) -> Iterator[None]:
        """Let a stream in for as long as the context is open.

        Args:
            config: The stream's validated config.
            is_resumed: Whether it was let in before and its connection broke: a broadcast that is
                on the air is not turned away for others who came meanwhile.

        Raises:
            OverloadedError: There is no room for it; says of what.
        """
        pools = {pool.name: pool for pool in self._triton.snapshot()}
        self._learn(pools)
        self._check_memory(config)
        if config.is_live and not is_resumed:
            self._check_load(config, pools)
        self._take_slot(None if is_resumed else pools.get(SAM2_TRACKER.name))
        admitted = _Admitted(config, time.monotonic())
        self._open.append(admitted)
        try:
            yield
        finally:
            self._open.remove(admitted)
            self._everybody.give_place_back()
            if not self._live:
                self._control.ladder.reset()

    @property
    def _live(self) -> list[_Admitted]:
        return [stream for stream in self._open if stream.config.is_live]

    def _learn(self, pools: dict[str, PoolSnapshot]) -> None:
        """Take note of the rows that each model is asked for per frame."""
        frames_per_s = self._control.frames_per_s
        if not self._control.is_whole or frames_per_s < _LEAST_FRAME_RATE:
            return
        for name, pool in pools.items():
            self._rows_per_frame[name] = pool.rows_per_s / frames_per_s

    def _check_memory(self, config: StreamConfig) -> None:
        under_way = (stream.config for stream in self._open)
        needed = sum(self._bytes(stream) for stream in (*under_way, config))
        most = self._settings.overload.memory_bytes
        if needed > most:
            raise OverloadedError(
                f"memory is full: frames under way may take {needed >> 20} MiB with this stream, "
                f"of {most >> 20} MiB"
            )

    def _take_slot(self, tracker: PoolSnapshot | None) -> None:
        """Count the stream, which needs a slot of the tracker beside those of all workers."""
        most = None
        if tracker is not None and tracker.slots:
            ending = max(0, tracker.slots_used - len(self._open))
            most = tracker.slots - ending
        if not self._everybody.take_place(most):
            assert tracker is not None
            raise OverloadedError(f"{tracker.name} is full: all {tracker.slots} slots are taken")

    def _check_load(self, config: StreamConfig, pools: dict[str, PoolSnapshot]) -> None:
        """Refuse a live stream that the models, as far as they are known, have no room for."""
        capacities = {
            name: capacity
            for name, pool in pools.items()
            if (capacity := pool.capacity_rows_per_s) and self._rows_per_frame.get(name)
        }
        self._check_level(Level.SEGMENT_LESS if capacities else Level.NORMAL)
        if capacities:
            self._check_capacity(config, capacities)
        else:
            self._check_newcomers()

    def _check_level(self, highest: Level) -> None:
        if self._live and self._control.ladder.level > highest:
            raise OverloadedError("the live streams here are overloaded; try another server")

    def _check_newcomers(self) -> None:
        """Let no more in at a time than are served already: that twice as much fits is unknown."""
        since = time.monotonic() - _SETTLED_S
        settled = sum(stream.at <= since for stream in self._live)
        most = max(self._settings.overload.first_streams, settled)
        if len(self._live) - settled >= most:
            raise OverloadedError(
                f"no model's capacity is known yet: at most {most} live streams are let in within "
                f"{_SETTLED_S:g} s; come again later, or try another server"
            )

    def _check_capacity(self, config: StreamConfig, capacities: Mapping[str, float]) -> None:
        live = [stream.config.frame_rate for stream in self._live]
        frame_rate = sum(live) + config.frame_rate
        for name, capacity in capacities.items():
            share = self._rows_per_frame[name] * frame_rate / capacity
            most = self._settings.overload.headroom
            if share > most:
                raise OverloadedError(
                    f"{name} is full: with this stream live streams would need {share:.0%} of "
                    f"its {capacity:.0f} rows a second, of which they may take {most:.0%}"
                )

    def _bytes(self, config: StreamConfig) -> int:
        pixels = (config.width or 0) * (config.height or 0) or _ASSUMED_PIXELS
        return credit(config, self._settings) * pixels * 3
