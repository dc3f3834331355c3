"""Clients that do what they should not: die, go without a word, send and never read.

As a module, `python -m tests.chaos.clients HOST:PORT`, it is a client that waits to be killed.
"""

import asyncio
import contextlib
import itertools
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence

import grpc
from soccer.v1 import player_recognition_pb2 as pb
from soccer.v1 import player_recognition_pb2_grpc as pb_grpc

from deploy.local import die_with_parent
from tests.chaos.stage import BUDGET_S, FRAME_RATE, Measures, Stage
from tests.load.broadcaster import Broadcaster, live_config
from tests.load.pictures import MatchPictures
from tests.load.soak import resident_mb
from tests.load.tally import Tally

Call = grpc.aio.StreamStreamCall[pb.RecognizeStreamRequest, pb.RecognizeStreamResponse]

_NOWHERE = "127.0.0.1:9"
"""Where nobody listens."""
_LIFE_S = 60.0
"""How long a client process lives that nobody kills, in seconds."""
_GREEDY_RATE, _GREEDY_S = 50.0, 5.0
_SETTLED_S = 3.0
_NARROW = (
    # Answers that nobody reads fill 64 KiB on the client's side, and not megabytes.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1 << 16),
)


async def kill_client(stage: Stage) -> Measures:
    """Kill a client's process, and see when the tracker has no sequence of it any more."""
    others = len(stage.playing)
    async with _client_process(stage.orchestrator.target) as pid:
        await stage.until_followed(others + 1)
        os.kill(pid, signal.SIGKILL)
        return {"slot_free_s": await _slot_free_s(stage, others)}


async def lose_client(stage: Stage) -> Measures:
    """Reset a client's connection, in the middle of a call, and let no new one through."""
    stage.relays[0].target = _NOWHERE
    stage.relays[0].cut()
    free_s = await _slot_free_s(stage, len(stage.playing) - 1)
    stage.playing[0].cancel()
    return {"slot_free_s": free_s}


async def silence_client(stage: Stage) -> Measures:
    """Let nothing pass to or from a client any more, its connection staying open at both ends."""
    stage.relays[0].freeze()
    stage.playing[0].cancel()
    return {"slot_free_s": await _slot_free_s(stage, len(stage.playing) - 1)}


async def read_nothing(stage: Stage) -> Measures:
    """Let one more client send video and read no answer for a while, whatever its credits say."""
    client = _GreedyClient(stage.orchestrator.target, await asyncio.to_thread(_large_pictures))
    async with asyncio.TaskGroup() as group:
        group.create_task(client.play(_SETTLED_S, _GREEDY_S))
        await asyncio.sleep(_SETTLED_S)
        settled = await _orchestrator_mb(stage)
        peak, end = settled, time.monotonic() + _GREEDY_S
        while time.monotonic() < end:
            peak = max(peak, await _orchestrator_mb(stage))
            await asyncio.sleep(0.25)
    return {
        "greedy_sent": client.tally.counts["sent"],
        "greedy_declared_lost": client.tally.counts["gap.OVERLOADED"],
        "greedy_unaccounted": client.tally.unanswered + client.tally.counts["repeated"],
        "orchestrator_growth_mb": round(peak - settled, 1),
    }


class _GreedyClient:
    """Sends at the usual rate and reads at first; then sends as fast as it may and reads nothing.

    Args:
        target: `host:port` of the server.
        pictures: JPEG, sent in turn.

    Attributes:
        tally: What was counted so far.
    """

    def __init__(self, target: str, pictures: Sequence[bytes]) -> None:
        self.tally = Tally(BUDGET_S)
        self._target = target
        self._pictures = pictures
        self._reads = asyncio.Event()
        self._reads.set()

    async def play(self, seconds: float, greedy_s: float) -> None:
        """Play both parts, and then read what there is to read."""
        async with grpc.aio.insecure_channel(self._target, _NARROW) as channel:
            call = pb_grpc.PlayerRecognitionServiceStub(channel).RecognizeStream()
            config = live_config("greedy", FRAME_RATE, BUDGET_S)
            await call.write(pb.RecognizeStreamRequest(config=config))
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(call))
                group.create_task(self._send(call, time.monotonic() + seconds + greedy_s))
                await asyncio.sleep(seconds)
                self._reads.clear()
                await asyncio.sleep(greedy_s)
                self._reads.set()

    async def _send(self, call: Call, end: float) -> None:
        for index in itertools.count():
            frame = pb.Frame(frame_index=index, data=self._pictures[index % len(self._pictures)])
            self.tally.note_sent(index, time.monotonic())
            await call.write(pb.RecognizeStreamRequest(frame=frame))
            if time.monotonic() >= end:
                break
            await asyncio.sleep(1 / (FRAME_RATE if self._reads.is_set() else _GREEDY_RATE))
        await call.done_writing()

    async def _read(self, call: Call) -> None:
        while (response := await call.read()) is not grpc.aio.EOF:
            self.tally.note(response)
            await self._reads.wait()


@contextlib.asynccontextmanager
async def _client_process(target: str) -> AsyncIterator[int]:
    """Run a client in a process of its own; yields its id."""
    command = [sys.executable, "-m", "tests.chaos.clients", target]
    process = await asyncio.create_subprocess_exec(*die_with_parent.prefix(), *command)
    try:
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _slot_free_s(stage: Stage, streams: int) -> float:
    """Return how long it takes until the trackers follow so many streams only."""
    begun = time.monotonic()
    await stage.until_followed(streams)
    return round(time.monotonic() - begun, 2)


async def _orchestrator_mb(stage: Stage) -> float:
    """Return the resident memory of the orchestrator and its decoding processes."""
    return sum((await asyncio.to_thread(resident_mb, [stage.orchestrator.pid])).values())


def _large_pictures() -> list[bytes]:
    pictures = MatchPictures(1920, 1080)
    return [pictures.jpeg(number) for number in range(10)]


async def _play(target: str) -> None:
    config = live_config("to be killed", FRAME_RATE, BUDGET_S)
    await Broadcaster(target, config, MatchPictures(), seconds=_LIFE_S).play()


if __name__ == "__main__":
    asyncio.run(_play(sys.argv[1]))
