"""Where a chaos scenario plays: a `sim` cluster with replicas, an orchestrator, live streams."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from deploy.local.cluster import LocalCluster
from deploy.local.orchestrator import OrchestratorProcess
from deploy.local.tritonserver import TritonServer
from tests.chaos.clock import WallClock
from tests.chaos.faults import counted, live_sequences
from tests.chaos.journal import Journal
from tests.load.broadcaster import Broadcaster, first_frame, live_config
from tests.load.network import Relay
from tests.load.pictures import MatchPictures

FRAME_RATE = 10.0
BUDGET_S = 1.0
BEFORE_S = 4.0
"""Streams run for so long before a fault; a recognised person needs some of it."""
TRACKER = "sam2_tracker"
_SETTINGS = {"TOUCHLINE_TRITON__PROBE_INTERVAL_S": "0.5", "TOUCHLINE_METRICS__PORT": "0"}
_FOLLOWED_WITHIN_S = 60.0

Measures = Mapping[str, float]
"""What a fault finds out itself, by names with units."""


@dataclass
class Stage:
    """What a scenario can do things to.

    Attributes:
        cluster: The models.
        orchestrator: In front of them.
        clock: The orchestrator's wall clock, where the scenario may set it.
        relays: The connection of each stream.
        playing: The streams themselves.
        stack: Ends with the stage; for what a scenario starts.
    """

    cluster: LocalCluster
    orchestrator: OrchestratorProcess
    stack: contextlib.AsyncExitStack
    clock: WallClock | None = None
    relays: list[Relay] = field(default_factory=list)
    playing: list[asyncio.Task[object]] = field(default_factory=list)

    @property
    def settings(self) -> Mapping[str, str]:
        """Of the orchestrator."""
        return _SETTINGS

    def servers(self, model: str) -> list[TritonServer]:
        """Return the replicas of a model."""
        return self.cluster.replicas[model]

    async def busiest_tracker(self) -> TritonServer:
        """Return the tracker's replica that holds most streams."""
        counts = await self._followed()
        return self.servers(TRACKER)[counts.index(max(counts))]

    async def until_followed(self, streams: int) -> None:
        """Wait until the trackers follow exactly so many streams."""
        async with asyncio.timeout(_FOLLOWED_WITHIN_S):
            while sum(await self._followed()) != streams:  # noqa: ASYNC110  only polling tells
                await asyncio.sleep(0.02)

    async def ejections(self) -> float:
        """Return how often the orchestrator took a replica of any model out of use."""
        return await asyncio.to_thread(
            counted, self.orchestrator.log_text(), "touchline_model_ejections_total"
        )

    async def _followed(self) -> list[float]:
        """Return how many streams live in each of the tracker's replicas."""
        servers = self.servers(TRACKER)
        return await asyncio.gather(*(asyncio.to_thread(live_sequences, s) for s in servers))


Fault = Callable[[Stage], Awaitable[Measures | None]]


@dataclass(frozen=True)
class Outcome:
    """What the streams saw of a fault.

    Attributes:
        scenario: Its name.
        streams: Live streams.
        frames_sent: By the streams that were to go on.
        frames_unaccounted: Of these, without exactly one answer.
        frames_lost: Of these, declared as gaps.
        ids_kept_share: People in sight before and after with the same track id.
        longest_gap_s: Longest time without a recognition of a stream, less one frame's.
        recovery_s: From the fault to the last lost or incomplete frame.
        resumed: Connections that went on where another broke off.
        refusals: How streams ended that did not end well.
        measured: What the fault found out itself.
    """

    scenario: str
    streams: int
    frames_sent: int
    frames_unaccounted: int
    frames_lost: int
    ids_kept_share: float
    longest_gap_s: float
    recovery_s: float
    resumed: int
    refusals: tuple[str, ...]
    measured: Measures


@contextlib.asynccontextmanager
async def stage(replicas: Mapping[str, int], *, sets_clock: bool = False) -> AsyncIterator[Stage]:
    """Start a cluster with some models replicated, and an orchestrator, with a clock to be set."""
    async with (
        LocalCluster("sim", replicas=replicas) as cluster,
        contextlib.AsyncExitStack() as stack,
    ):
        clock = stack.enter_context(WallClock()) if sets_clock else None
        settings = _SETTINGS | (clock.environment if clock else {})
        orchestrator = OrchestratorProcess(cluster.replica_endpoints, settings=settings)
        await stack.enter_async_context(orchestrator)
        yield Stage(cluster, orchestrator, stack, clock)


async def play_through(
    scene: Stage, scenario: str, fault: Fault, *, streams: int = 2, after_s: float = 8.0
) -> Outcome:
    """Let live streams run, do something to them, and see what they say of it.

    Args:
        scene: The cluster.
        scenario: Its name.
        fault: Called `BEFORE_S` after the streams began; done before they end.
        streams: Live streams.
        after_s: How long they go on after the fault began.
    """
    pictures = MatchPictures()
    async with contextlib.AsyncExitStack() as stack:
        relays = [await stack.enter_async_context(Relay(scene.orchestrator.target))
                  for _ in range(streams)]  # fmt: skip
        journals = [Journal(first_frame(seed, pictures)) for seed in range(streams)]
        broadcasters = [
            Broadcaster(
                relay.address,
                live_config(f"{scenario} {seed}", FRAME_RATE, BUDGET_S),
                pictures,
                seconds=BEFORE_S + after_s,
                seed=seed,
                on_response=journal.note,
            )
            for seed, (relay, journal) in enumerate(zip(relays, journals, strict=True))
        ]
        scene.relays = relays
        async with asyncio.TaskGroup() as group:
            scene.playing = [group.create_task(one.play()) for one in broadcasters]
            await asyncio.sleep(BEFORE_S)
            begun = time.monotonic()
            measured = await fault(scene) or {}
    survivors = [
        (broadcaster, journal)
        for broadcaster, journal, task in zip(broadcasters, journals, scene.playing, strict=True)
        if not task.cancelled()
    ]
    return _outcome(scenario, survivors, begun, begun + after_s, measured)


def _outcome(
    scenario: str,
    survivors: list[tuple[Broadcaster, Journal]],
    begun: float,
    end: float,
    measured: Measures,
) -> Outcome:
    kept = [journal.ids_kept(begun) for _, journal in survivors]
    tallies = [broadcaster.tally for broadcaster, _ in survivors]
    journals = [journal for _, journal in survivors]
    return Outcome(
        scenario=scenario,
        streams=len(survivors),
        frames_sent=sum(tally.counts["sent"] for tally in tallies),
        frames_unaccounted=sum(tally.unanswered + tally.counts["repeated"] for tally in tallies),
        frames_lost=sum(len(journal.gaps) for journal in journals),
        ids_kept_share=round(sum(k for k, _ in kept) / max(1, sum(n for _, n in kept)), 4),
        longest_gap_s=round(max(j.longest_gap_s(begun, end, FRAME_RATE) for j in journals), 2),
        recovery_s=round(max(journal.recovered_at(begun) - begun for journal in journals), 2),
        resumed=sum(tally.counts["resumed"] for tally in tallies),
        refusals=tuple(tally.refusal for tally in tallies if tally.refusal),
        measured=measured,
    )
