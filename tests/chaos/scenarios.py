"""The scenarios: what goes wrong on a match night, one thing at a time."""

import asyncio
import json
import math
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from deploy.local.orchestrator import OrchestratorProcess
from tests.chaos.clients import kill_client, lose_client, read_nothing, silence_client
from tests.chaos.faults import hang, restart, stop, stub_pid
from tests.chaos.stage import BUDGET_S, FRAME_RATE, TRACKER, Fault, Measures, Stage
from tests.load.broadcaster import Broadcaster, live_config
from tests.load.pictures import MatchPictures

DETECTOR = "rfdetr_detector"
_PAIRS = {DETECTOR: 2, TRACKER: 2}


@dataclass(frozen=True)
class Scenario:
    """One thing that goes wrong.

    Attributes:
        name: In the report.
        fault: What is done.
        replicas: Servers by model; other models share one.
        after_s: How long the streams go on from the fault.
        streams: Live streams.
        most_gap_s: Longest time between recognitions that a stream may see.
        least_kept: Least share of track ids that must be kept.
        most_recovery_s: Longest time until nothing is lost or missing any more.
        sets_clock: Whether the orchestrator's wall clock can be set, which takes libfaketime.
        measured: Least and most of what the fault measures.
    """

    name: str
    fault: Fault
    replicas: Mapping[str, int] = field(default_factory=lambda: _PAIRS)
    after_s: float = 8.0
    streams: int = 2
    most_gap_s: float = 1.0
    least_kept: float = 0.95
    most_recovery_s: float = 5.0
    sets_clock: bool = False
    measured: Mapping[str, tuple[float, float]] = field(default_factory=dict)


async def nothing(stage: Stage) -> None:
    """Do nothing: what the other scenarios are compared with."""


async def kill_detector_stub(stage: Stage) -> None:
    """Kill the process of one detector inside its living server."""
    os.kill(stub_pid(stage.servers(DETECTOR)[0], DETECTOR), signal.SIGKILL)


async def kill_tracker_stub(stage: Stage) -> None:
    """Kill the tracker's process that holds the streams, inside its living server."""
    os.kill(stub_pid(await stage.busiest_tracker(), TRACKER), signal.SIGKILL)


async def kill_detector_server(stage: Stage) -> None:
    """Kill one of two detectors' servers; it comes back after three seconds."""
    server = stage.servers(DETECTOR)[0]
    os.kill(server.pid, signal.SIGKILL)
    await asyncio.sleep(3)
    await restart(server)


async def lose_tracker_server(stage: Stage) -> None:
    """Kill the tracker's server that holds the streams; another is there, and this stays away."""
    os.kill((await stage.busiest_tracker()).pid, signal.SIGKILL)


async def hang_detector(stage: Stage) -> None:
    """Let one of two detectors' servers hang for four seconds."""
    await hang(stage.servers(DETECTOR)[0], 4)


async def hang_tracker(stage: Stage) -> None:
    """Let the tracker's server that holds the streams hang for four seconds."""
    await hang(await stage.busiest_tracker(), 4)


async def pause_tracker(stage: Stage) -> Measures:
    """Let the tracker take long over a batch: its process stands still, its server does not."""
    await stop([stub_pid(await stage.busiest_tracker(), TRACKER)], 0.8)
    return {"ejections": await stage.ejections()}


async def keep_machine_busy(stage: Stage) -> Measures:
    """Let other work have most of the machine's cores for five seconds."""
    burning = "import time; end = time.monotonic() + 5\nwhile time.monotonic() < end: pass"
    crowd = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", burning)
        for _ in range(2 * (os.cpu_count() or 1))
    ]
    await asyncio.gather(*(process.wait() for process in crowd))
    return {"ejections": await stage.ejections()}


async def restart_all(stage: Stage) -> None:
    """Restart every replica, one after the other, as a roll-out does."""
    for model in (DETECTOR, TRACKER):
        for server in stage.servers(model):
            await restart(server)
            await asyncio.sleep(1)


async def lose_all_detectors(stage: Stage) -> None:
    """Kill all detectors; they come back after two seconds."""
    servers = stage.servers(DETECTOR)
    for server in servers:
        os.kill(server.pid, signal.SIGKILL)
    await asyncio.sleep(2)
    await asyncio.gather(*(restart(server) for server in servers))


async def cut_connections(stage: Stage) -> None:
    """Reset the connections of all clients."""
    for relay in stage.relays:
        relay.cut()


async def vanish(stage: Stage) -> None:
    """Let one client freeze without closing its connection, and another one go."""
    stage.relays[0].freeze()
    stage.playing[0].cancel()
    stage.playing[1].cancel()


async def slow_down(stage: Stage) -> None:
    """Let nothing pass to or from one client for three seconds."""
    stage.relays[0].freeze()
    await asyncio.sleep(3)
    stage.relays[0].thaw()


async def kill_orchestrator(stage: Stage) -> None:
    """Kill the orchestrator; another one takes over its clients."""
    os.kill(stage.orchestrator.pid, signal.SIGKILL)
    successor = OrchestratorProcess(stage.cluster.replica_endpoints, settings=dict(stage.settings))
    await stage.stack.enter_async_context(successor)
    for relay in stage.relays:
        relay.target = successor.target


async def jump_clock(stage: Stage) -> Measures:
    """Set the orchestrator's clock an hour ahead while clients reconnect, and behind later."""
    assert stage.clock is not None
    await cut_connections(stage)
    await stage.clock.jump(3600)
    ahead_s = await _told_ahead_s(stage, "an hour ahead")
    await stage.clock.jump(-3600)
    return {"clock_ahead_s": ahead_s, "clock_behind_s": -await _told_ahead_s(stage, "behind")}


async def _told_ahead_s(stage: Stage, name: str) -> float:
    """Let a short stream run, or be refused; return how far ahead of us its audit event is."""
    config = live_config(name, FRAME_RATE, BUDGET_S)
    tally = await Broadcaster(stage.orchestrator.target, config, MatchPictures(), seconds=1).play()
    if not tally.is_accounted:
        raise LookupError(f"expected one answer to each frame, got {tally.counts}")
    lines = stage.orchestrator.log_text().splitlines()
    told = [json.loads(line)["time"] for line in lines if line.startswith("{")][-1]
    return round((datetime.fromisoformat(told) - datetime.now(UTC)).total_seconds())


_NO_EJECTION = {"ejections": (0, 0)}
_SLOT_FREE = {"slot_free_s": (0, 1.0)}
_NO_KEEPALIVE = {"slot_free_s": (0, 20.0)}
"""A quiet connection is probed every 10 s, and given half as long to answer."""
_BOUNDED = {
    "greedy_declared_lost": (1, math.inf),
    "greedy_unaccounted": (0, 0),
    "orchestrator_growth_mb": (-math.inf, 96),  # eight frames under way, decoded, are 50
}
_HOUR = {"clock_ahead_s": (3500, 3610), "clock_behind_s": (3590, 3700)}

SCENARIOS = (
    Scenario("nothing happens", nothing),
    Scenario("kill -9 of a detector's stub", kill_detector_stub),
    Scenario("kill -9 of the tracker's stub", kill_tracker_stub),
    Scenario("kill -9 of a detector's server", kill_detector_server),
    Scenario("kill -9 of the tracker's server", lose_tracker_server),
    Scenario("a detector hangs for 4 s", hang_detector, after_s=10),
    Scenario("the tracker hangs for 4 s", hang_tracker, after_s=10),
    Scenario("the tracker stands still for 0.8 s", pause_tracker, measured=_NO_EJECTION),
    Scenario("a busy machine for 5 s", keep_machine_busy, most_gap_s=3.0, measured=_NO_EJECTION),
    Scenario("rolling restart", restart_all, after_s=24),
    Scenario(
        "all detectors gone for 2 s",
        lose_all_detectors,
        after_s=10,
        most_gap_s=8.0,
        least_kept=0.5,  # nobody was seen for seconds
        most_recovery_s=8.0,
    ),
    Scenario("connections reset", cut_connections, most_gap_s=3.0),
    Scenario("two of three clients vanish", vanish, streams=3),
    Scenario(
        "a client stands still for 3 s",
        slow_down,
        most_gap_s=5.0,
        least_kept=0.93,  # what it would have sent meanwhile is not shown to anybody
    ),
    Scenario("kill -9 of a client", kill_client, measured=_SLOT_FREE),
    Scenario("a client's connection breaks for good", lose_client, measured=_SLOT_FREE),
    Scenario("a client goes silent", silence_client, after_s=20, measured=_NO_KEEPALIVE),
    Scenario("a client sends and does not read", read_nothing, after_s=12, measured=_BOUNDED),
    Scenario(
        "the wall clock jumps by hours",
        jump_clock,
        after_s=11,
        most_gap_s=3.0,
        most_recovery_s=math.inf,  # libfaketime doubles the orchestrator's CPU: overload, declared
        sets_clock=True,
        measured=_HOUR,
    ),
    Scenario(
        "orchestrator killed",
        kill_orchestrator,
        after_s=14,
        most_gap_s=12.0,
        most_recovery_s=12.0,
        least_kept=0.0,  # what it knew of the streams is gone with it
    ),
)
