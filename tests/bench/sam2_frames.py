"""How a frame best travels to the tracker: raw in shared memory, raw by gRPC, or as JPEG."""

import statistics
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from deploy.local.cluster import LocalCluster
from orchestrator.contracts import SAM2_TRACKER
from orchestrator.settings import TritonSettings
from orchestrator.triton.client import SequenceStep, TritonClient
from tests.conftest import DATA
from tests.stream.streams import pictures

SHAPES = ((720, 1280), (1080, 1920))
_JPEG_QUALITY = 90

Encode = Callable[[NDArray[np.uint8]], dict[str, NDArray[Any]]]


@dataclass(frozen=True, slots=True)
class FrameInput:
    """One way of sending frames of one size to the served model, one object tracked.

    Attributes:
        input: `raw_shared_memory`, `raw_grpc` or `jpeg`.
        width: Of the frame in pixels.
        height: Of the frame in pixels.
        ms_per_request: Median wall time from the call to its answer, tracking included.
        encode_ms: Median time that the client took to encode the frame before; 0 if raw.
        frame_bytes: Median size of what is sent.
        requests: Timed requests.
    """

    input: str
    width: int
    height: int
    ms_per_request: float
    encode_ms: float
    frame_bytes: int
    requests: int


class _Sender:
    """One sequence on the served tracker."""

    def __init__(self, name: str, client: TritonClient, sequence: int, encode: Encode) -> None:
        self.name = name
        self._client = client
        self._sequence = sequence
        self._encode = encode
        self._samples: list[tuple[float, float, int]] = []

    async def start(self, frame: NDArray[np.uint8]) -> None:
        """Prompt the one object."""
        height, width = frame.shape[:2]
        box = [[[width / 2 - 20, height / 2 - 45, width / 2 + 20, height / 2 + 45]]]
        prompt = {
            "prompt_object_ids": np.array([[1]], np.int64),
            "prompt_boxes": np.array(box, np.float32),
        }
        await self._infer(self._encode(frame) | prompt, is_start=True)

    async def send(self, frame: NDArray[np.uint8]) -> None:
        """Send one frame and note what it took."""
        begun = time.perf_counter()
        inputs = self._encode(frame)
        encoded = time.perf_counter()
        await self._infer(inputs)
        answered = time.perf_counter()
        (tensor,) = inputs.values()
        size = len(tensor[0, 0]) if tensor.dtype == np.object_ else tensor.nbytes
        self._samples.append((answered - encoded, encoded - begun, size))

    def result(self, shape: tuple[int, int], warmups: int) -> FrameInput:
        """Medians over what was sent, without the first frames."""
        timed = self._samples[warmups:]
        request, encode, size = (statistics.median(column) for column in zip(*timed, strict=True))
        height, width = shape
        milliseconds = round(1000 * request, 2), round(1000 * encode, 2)
        return FrameInput(self.name, width, height, *milliseconds, int(size), len(timed))

    async def _infer(self, inputs: dict[str, NDArray[Any]], is_start: bool = False) -> None:
        step = SequenceStep(self._sequence, is_start)
        answer = await self._client.infer(SAM2_TRACKER, inputs, step=step)
        if answer["object_ids"].tolist() != [[1]]:
            raise RuntimeError(f"expected object 1 to be tracked, got {answer['object_ids']}")


async def measure(requests: int, warmups: int = 10) -> list[FrameInput]:
    """Send the demo clip in turns in every way to the real server with its own settings."""
    found = []
    clip = pictures(DATA / "demo_01.mp4", 10)
    async with LocalCluster(models=[SAM2_TRACKER.name]) as cluster, AsyncExitStack() as stack:
        shared, remote = [
            await stack.enter_async_context(_client(cluster, transport))
            for transport in ("shared_memory", "grpc")
        ]
        for first, shape in zip((1, 11), SHAPES, strict=True):
            frames = [np.asarray(cv2.resize(p, shape[::-1]), np.uint8) for p in clip]
            senders = [
                _Sender("raw_shared_memory", shared, first, _raw),
                _Sender("raw_grpc", remote, first + 1, _raw),
                _Sender("jpeg", remote, first + 2, _jpeg),
            ]
            for sender in senders:
                await sender.start(frames[0])
            for count in range(warmups + requests):
                for sender in senders:
                    await sender.send(frames[count % len(frames)])
            found += [sender.result(shape, warmups) for sender in senders]
    return found


def _client(cluster: LocalCluster, transport: Literal["shared_memory", "grpc"]) -> TritonClient:
    settings = TritonSettings(urls=cluster.endpoints, transport=transport)
    return TritonClient(settings, (SAM2_TRACKER,))


def _raw(frame: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    return {"frame": frame[None]}


def _jpeg(frame: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), quality)
    return {"frame_jpeg": np.array([[encoded.tobytes()]], np.object_)}
