"""Hostile calls by the ten thousand against the real gRPC server, with stand-ins for the models.

`python -m tests.fuzz.api --inputs 100000 --output out/fuzz_api.json` sends that many messages and
bare connections, writes what became of them, and fails if a call ended otherwise than the API
promises, a frame stayed without its one answer, or anything was left behind. An attack follows
from seed and number alone, so that what the report names can be sent again.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import random
import resource
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import grpc
import uvloop
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2, health_pb2_grpc
from soccer.v1 import player_recognition_pb2 as pb

from orchestrator.client import BROKEN_WRITE
from orchestrator.decode_guard.nursery import NURSERY
from orchestrator.server import SERVICE, RunningServer
from orchestrator.settings import SecuritySettings
from tests.fuzz.api_inputs import LAST_TOKEN, Attack, attack
from tests.fuzz.api_tally import Tally
from tests.unit.scripted_server import PERSON, scripted_server
from tests.unit.scripted_triton import ScriptedTriton

AT_ONCE = 8
"""Attacks under way together."""
LONGEST_S = 60.0
"""A call that takes longer hangs."""
QUOTA = "[tenants.default.quota]\nstreams = 5\nframes_per_s = 150\nmax_pixels = 100_000\n"
_PROMISED = {
    "OK",
    "INVALID_ARGUMENT",
    "RESOURCE_EXHAUSTED",
    "ABORTED",
    "UNIMPLEMENTED",
    "CANCELLED",
}


class Assault:
    """A running server and those who attack it."""

    def __init__(self, running: RunningServer) -> None:
        self.tally = Tally()
        self._running = running
        self._channel = grpc.aio.insecure_channel(running.target)
        self._last_token = ""
        self._quiet: Counter[str] = Counter()

    async def begin(self) -> None:
        """Note what runs while nobody attacks."""
        await self._healthy()
        self._quiet = _tasks()

    async def send(self, attacks: Iterable[tuple[int, Attack]]) -> None:
        """Send attacks, some at once, and note what is not as promised."""
        async with asyncio.TaskGroup() as tasks:
            for number, one in attacks:
                tasks.create_task(self._send(number, one))

    async def end(self) -> None:
        """Check that the server is well and that nothing is left behind."""
        await self._healthy()
        servicer: Any = self._running.servicer
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_S):
                while servicer._places_taken or _tasks() - self._quiet or _workers():  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        if servicer._places_taken:
            self.tally.violate(f"{servicer._places_taken} places are still taken")
        for name, count in (_tasks() - self._quiet).items():
            self.tally.violate(f"{count} tasks are left: {name}")
        if _workers():
            self.tally.violate(f"decoding processes are left: {_workers()}")

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def _send(self, number: int, one: Attack) -> None:
        tally = self.tally
        tally.calls += 1
        tally.inputs += 1 if one.target == "wire" else len(one.parts)
        try:
            async with asyncio.timeout(LONGEST_S):
                if one.target == "wire":
                    await self._write(one.parts)
                    return
                status = await self._call(number, one)
        except TimeoutError:
            tally.violate(f"{number}: no end after {LONGEST_S} s")
            return
        tally.statuses[status] += 1

    async def _call(self, number: int, one: Attack) -> str:
        parts = [self._with_token(part) for part in one.parts]
        if one.ending == "vanish":
            async with grpc.aio.insecure_channel(self._running.target) as channel:
                await self._cancelled(_open(channel, one, parts))
            return "CANCELLED"
        call = _open(self._channel, one, parts)
        if one.ending == "cancel":
            return await self._cancelled(call)
        responses: list[pb.RecognizeStreamResponse] = []
        status = await self._end(number, call, responses)
        if one.target == "RecognizeStream":
            self.tally.account(number, parts, responses, is_whole=status == "OK")
        return status

    async def _end(
        self, number: int, call: Any, responses: list[pb.RecognizeStreamResponse]
    ) -> str:
        """Await a call's end, collecting what a stream is answered; return its status."""
        try:
            if isinstance(call, grpc.aio.UnaryUnaryCall):
                await call
            else:
                async for data in call:  # what came before an error counts, too
                    responses.append(self._read(data))  # noqa: PERF401
        except grpc.aio.AioRpcError as error:
            # What the server said is unseen then; but it logs each INTERNAL of its own, and that is
            # a violation, too.
            if error.details() == BROKEN_WRITE:
                return "UNSEEN"
            if error.code().name not in _PROMISED:
                self.tally.violate(f"{number}: {error.code().name}: {error.details()}")
            return error.code().name
        return "OK"

    async def _cancelled(self, call: Any) -> str:
        """Let a call come some way, then give it up."""
        await asyncio.sleep(random.choice((0, 0.001, 0.01)))
        call.cancel()
        return "CANCELLED"

    def _read(self, data: bytes) -> pb.RecognizeStreamResponse:
        response = pb.RecognizeStreamResponse.FromString(data)
        self._last_token = response.started.resume_token or self._last_token
        return response

    def _with_token(self, part: bytes) -> bytes:
        if LAST_TOKEN.encode() not in part:
            return part
        with contextlib.suppress(DecodeError):
            request = pb.RecognizeStreamRequest.FromString(part)
            if request.config.resume_token == LAST_TOKEN:
                request.config.resume_token = self._last_token
                return request.SerializeToString()
        return part

    async def _write(self, parts: tuple[bytes, ...]) -> None:
        """Write to the bare port; whatever the server does with the connection is its right."""
        host, port = self._running.target.split(":")
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                for part in parts:
                    writer.write(part)
                    await writer.drain()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1 << 12), 0.02)
            finally:
                writer.close()

    async def _healthy(self) -> None:
        stub = health_pb2_grpc.HealthStub(self._channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=LONGEST_S)
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            self.tally.violate("the server is not well")


def _open(channel: grpc.aio.Channel, one: Attack, parts: list[bytes]) -> Any:
    """Open a call that sends and takes plain bytes."""
    method = f"/{SERVICE}/{one.target}"
    if one.target == "RecognizeFrame":
        return channel.unary_unary(method)(parts[0], metadata=one.metadata)
    return channel.stream_stream(method)(iter(parts), metadata=one.metadata)


def _tasks() -> Counter[str]:
    """Count the tasks of this loop, but the present one, by what they run."""
    others = asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]
    return Counter(task.get_coro().__qualname__ for task in others)  # type: ignore[union-attr]


def _workers() -> list[str]:
    """Process ids of the decoders."""
    pid = NURSERY.pid
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split() if pid else []


@contextlib.asynccontextmanager
async def assaulted() -> AsyncIterator[Assault]:
    """A server under attack; errors that it logs and exceptions that nobody took are violations."""
    with tempfile.TemporaryDirectory() as folder:
        tenants = Path(folder, "tenants.toml")
        await asyncio.to_thread(tenants.write_text, QUOTA)
        security = SecuritySettings(tenants_file=tenants, audit_file=Path(folder, "audit.jsonl"))
        async with scripted_server(
            security=security,
            triton=ScriptedTriton(scene=lambda _: [PERSON], calls=deque(maxlen=8)),
            isolation="process",
            max_streams=AT_ONCE,
            max_frame_bytes=1 << 14,
        ) as running:
            assault = Assault(running)
            with _listening(assault.tally):
                await assault.begin()
                yield assault
                await assault.close()


@contextlib.contextmanager
def _listening(tally: Tally) -> Iterator[None]:
    class Errors(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tally.violate(f"logged: {self.format(record)}")

    handler, loop = Errors(logging.ERROR), asyncio.get_running_loop()
    logging.getLogger().addHandler(handler)
    loop.set_exception_handler(lambda _, context: tally.violate(f"not taken: {context}"))
    try:
        yield
    finally:
        loop.set_exception_handler(None)
        logging.getLogger().removeHandler(handler)


async def fuzz(inputs: int, seed: int) -> dict[str, object]:
    """Send inputs and return the report."""
    begun, number = time.monotonic(), 0
    async with assaulted() as assault:
        tally, warm = assault.tally, 0
        while tally.inputs < inputs:
            batch = range(number, number + AT_ONCE)
            await assault.send((n, attack(random.Random(f"{seed}/{n}"))) for n in batch)
            number = batch.stop
            if not warm and tally.inputs > inputs / 10:
                warm = _peak_bytes()
        await assault.end()
        return {
            "seed": seed,
            **{name: dict(v) if isinstance(v, Counter) else v for name, v in vars(tally).items()},
            "growth_after_a_tenth_bytes": _peak_bytes() - warm,
            "threads": threading.active_count(),
            "seconds": round(time.monotonic() - begun, 1),
        }


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def main() -> int:
    """Fuzz, write the report, and return 1 if anything was not as promised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report = runner.run(fuzz(options.inputs, options.seed))
    text = json.dumps(report, indent=2)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text + "\n")
    sys.stdout.write(text + "\n")
    return 1 if report["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
