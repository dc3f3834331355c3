"""The obvious script: the models called one after the other, without any orchestrator.

It is what the orchestrator is measured against: the tracker alone, as fast as it can be driven, and
the whole chain of models at a given rate. It knows the truth, so that it sends the very rows that
the orchestrator would send, and it sends pixels through shared memory prepared beforehand.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from touchline_sim.record import load_record
from tritonclient.grpc.aio import InferenceServerClient, InferInput
from tritonclient.utils import np_to_triton_dtype, shared_memory

from orchestrator.contracts import (
    RESNET_JERSEY,
    RFDETR_DETECTOR,
    SAM2_TRACKER,
    SIGLIP_EMBEDDER,
    ModelContract,
)
from orchestrator.imaging import square_tiles
from orchestrator.settings import IdentifySettings, NumberSettings
from orchestrator.telemetry import LatencyHistogram
from tests.load import analyzer
from tests.load.broadcaster import first_frame
from tests.load.measure import Conditions
from tests.load.network import Uplink
from tests.load.pictures import MatchPictures
from tests.load.tally import fine_histogram

DETECTOR_SIZE = 192
CROP_SIZE = 32


class Script:
    """Calls the models of a cluster directly.

    Args:
        endpoints: `host:port` by model.
        pictures: The match.

    Attributes:
        pictures: The match.
    """

    def __init__(self, endpoints: Mapping[str, str], pictures: MatchPictures) -> None:
        self._endpoints = endpoints
        self.pictures = pictures
        self._record = load_record()
        self._size = np.array([pictures.width, pictures.height] * 2, np.float32)

    async def __aenter__(self) -> "Script":
        async with contextlib.AsyncExitStack() as stack:
            self._clients = {
                name: await stack.enter_async_context(InferenceServerClient(endpoint))
                for name, endpoint in self._endpoints.items()
            }
            self._frames = await self._share(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def track(self, sequence: int, number: int, *, is_start: bool, is_end: bool) -> None:
        """Let the tracker follow everybody of a frame; whoever appears is shown to it."""
        changes = self.changes(number, is_start=is_start)
        inputs = [self._shared_frame(number), *(_input(k, v[None]) for k, v in changes.items())]
        await self._clients[SAM2_TRACKER.name].infer(
            SAM2_TRACKER.name,
            inputs,
            sequence_id=sequence,
            sequence_start=is_start,
            sequence_end=is_end,
        )

    @property
    def tracker_endpoint(self) -> str:
        """`host:port` of the tracker's server."""
        return self._endpoints[SAM2_TRACKER.name]

    async def detect(self, number: int) -> None:
        """Let the detector look at the whole frame."""
        await self._ask(RFDETR_DETECTOR, "image", self._tiles[number % self.pictures.period])

    async def identify(self, number: int, frame_rate: float) -> None:
        """Let people be embedded and numbers be read where the orchestrator would."""
        people, asked = len(self._record.scene(number).person_ids), []
        if rows := rows_due(people, number, frame_rate, IdentifySettings()):
            crops = np.zeros((rows, CROP_SIZE, CROP_SIZE, 3), np.uint8)
            asked.append(self._ask(SIGLIP_EMBEDDER, "crops", crops))
        if rows := rows_due(people, number, frame_rate, NumberSettings()):
            crops = np.zeros((rows, 128, 64, 3), np.uint8)
            asked.append(self._ask(RESNET_JERSEY, "crops", crops))
        await asyncio.gather(*asked)

    async def _ask(self, contract: ModelContract, name: str, rows: NDArray[Any]) -> None:
        await self._clients[contract.name].infer(contract.name, [_input(name, rows)])

    def changes(self, number: int, *, is_start: bool) -> dict[str, NDArray[Any]]:
        """Return what the tracker is told of who came into sight and who left it, by tensor."""
        scene, before = self._record.scene(number), np.empty(0, np.int64)
        if not is_start:
            before = self._record.scene(number - 1).person_ids
        is_new = ~np.isin(scene.person_ids, before)
        gone = np.setdiff1d(before, scene.person_ids)
        tensors: dict[str, NDArray[Any]] = {}
        if is_new.any():
            tensors["prompt_object_ids"] = scene.person_ids[is_new]
            tensors["prompt_boxes"] = scene.boxes[is_new] * self._size
        if len(gone):
            tensors["forget_object_ids"] = gone
        return tensors

    async def _share(self, stack: contextlib.AsyncExitStack) -> "_SharedFrames":
        """Put all pictures where the tracker's server reads them."""
        period = self.pictures.period
        pictures = np.stack([self.pictures.rgb(number) for number in range(period)])
        self._tiles = [square_tiles(picture, 1, DETECTOR_SIZE)[0] for picture in pictures]
        frames = _SharedFrames(pictures)
        stack.callback(frames.close)
        client = self._clients[SAM2_TRACKER.name]
        await client.register_system_shared_memory(frames.name, frames.key, pictures.nbytes)
        stack.push_async_callback(client.unregister_system_shared_memory, frames.name)
        return frames

    def _shared_frame(self, number: int) -> InferInput:
        shape = [1, self.pictures.height, self.pictures.width, 3]
        pixels = InferInput("frame", shape, "UINT8")
        length = int(np.prod(shape))
        pixels.set_shared_memory(
            self._frames.name, length, offset=number % self.pictures.period * length
        )
        return pixels


class _SharedFrames:
    """Pictures in shared memory, one after the other."""

    def __init__(self, pictures: NDArray[np.uint8]) -> None:
        self.name = f"touchline-script-{secrets.token_hex(4)}"
        self.key = f"/{self.name}"
        self._region = shared_memory.create_shared_memory_region(
            self.name, self.key, pictures.nbytes
        )
        shared_memory.set_shared_memory_region(self._region, [pictures])

    def close(self) -> None:
        shared_memory.destroy_shared_memory_region(self._region)


def _input(name: str, rows: NDArray[Any]) -> InferInput:
    tensor = InferInput(name, list(rows.shape), np_to_triton_dtype(rows.dtype))
    tensor.set_data_from_numpy(np.ascontiguousarray(rows))
    return tensor


def rows_due(
    people: int, number: int, frame_rate: float, looks: IdentifySettings | NumberSettings
) -> int:
    """Return how many people the orchestrator would look at in a frame, each once per interval."""
    every, most = max(1, round(looks.interval_s * frame_rate)), looks.max_crops_per_frame
    return min(most, max(0, people - number % every * most))


async def tracker_frames_per_s(script: Script, streams: Sequence[int], seconds: float) -> float:
    """Return the most frames per second that the tracker alone does, over numbers of streams."""
    return max([await _closed_loop(script, count, seconds) for count in streams])


async def analyzed_tracker_frames_per_s(script: Script, streams: int) -> float | None:
    """Return what perf_analyzer finds for so many streams; None where it is missing."""
    if not analyzer.is_there():
        return None
    first = typical_frame(streams, script.pictures)
    steps = [
        {"frame": script.pictures.rgb(first + step)}
        | script.changes(first + step, is_start=not step)
        for step in range(analyzer.SEQUENCE_FRAMES)
    ]
    return await analyzer.analyzed_frames_per_s(script.tracker_endpoint, steps, streams)


def typical_frame(streams: int, pictures: MatchPictures) -> int:
    """Return the frame from which a sequence shows as many people as so many streams on average.

    perf_analyzer plays one sequence in all streams, and the tracker's time goes by people: from
    the match's first frame, which shows fewer, it would find a faster tracker than ours is.
    """
    match = load_record()
    in_sight = np.array([len(match.scene(n).person_ids) for n in range(2 * pictures.period)])
    firsts = [first_frame(stream, pictures) for stream in range(streams)]
    aim = np.mean([in_sight[n : n + analyzer.SEQUENCE_FRAMES] for n in firsts])
    played = analyzer.FRAMES_PER_STREAM
    shown = np.convolve(in_sight, np.full(played, 1 / played), "valid")[: pictures.period]
    return int(np.abs(shown - aim).argmin())


async def _closed_loop(script: Script, streams: int, seconds: float) -> float:
    begin = time.monotonic()

    async def follow(stream: int) -> int:
        sequence, done = secrets.randbits(62) + 1, 0
        first = first_frame(stream, script.pictures)
        while time.monotonic() < begin + seconds:
            await script.track(sequence, first + done, is_start=not done, is_end=False)
            done += 1
        await script.track(sequence, first + done, is_start=False, is_end=True)
        return done + 1

    counts = await asyncio.gather(*(follow(stream) for stream in range(streams)))
    return sum(counts) / (time.monotonic() - begin)


async def chain_latencies(
    script: Script, streams: int, frame_rate: float, conditions: Conditions, *, first_seed: int
) -> LatencyHistogram:
    """Return how long frames take through the chain of models, arriving as in `live_point`."""
    latencies, end_of_warm_up = fine_histogram(), time.monotonic() + conditions.warm_up_s

    async def follow(seed: int) -> None:
        chain = _Chain(script, first_frame(seed, script.pictures), frame_rate)
        begin = time.monotonic()
        arrivals = Uplink().arrivals(frame_rate, np.random.default_rng(seed))
        async with asyncio.TaskGroup() as frames:
            for index, after in enumerate(arrivals):
                await asyncio.sleep(begin + after - time.monotonic())
                since = begin + after - end_of_warm_up
                counted = latencies if 0 < since < conditions.seconds else LatencyHistogram()
                is_end = after > conditions.stream_s
                frames.create_task(chain.pass_through(index, begin + after, counted, is_end))
                if is_end:
                    return

    async with asyncio.TaskGroup() as group:
        for stream in range(streams):
            group.create_task(follow(first_seed + stream))
            await asyncio.sleep(conditions.pause_s(streams))
    return latencies


class _Chain:
    """One stream's frames: detected as they come, tracked in order, then identified."""

    def __init__(self, script: Script, first: int, frame_rate: float) -> None:
        self._script = script
        self._first = first
        self._frame_rate = frame_rate
        self._sequence = secrets.randbits(62) + 1
        self._turn = asyncio.Condition()
        self._next = 0

    async def pass_through(
        self, index: int, arrival: float, latencies: LatencyHistogram, is_end: bool
    ) -> None:
        number = self._first + index
        await self._script.detect(number)
        async with self._turn:
            await self._turn.wait_for(lambda: self._next == index)
            await asyncio.gather(
                self._script.track(self._sequence, number, is_start=not index, is_end=is_end),
                self._script.detect(number),  # the closer look for the ball
            )
            self._next += 1
            self._turn.notify_all()
        await self._script.identify(number, self._frame_rate)
        latencies.add(time.monotonic() - arrival)
