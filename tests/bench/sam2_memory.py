"""What a stream of 22 objects keeps in memory while it goes on and on."""

import gc
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sam2_streaming import architecture
from sam2_streaming.engine import StreamingEngine
from sam2_streaming.requests import StepRequest
from sam2_streaming.tracker import Tracker
from torch import Tensor

from tests.bench.sam2_official import Official, OfficialStart

_SMALLEST = architecture.CompactConfig(image_size=32, channels=64, embed_dim=8)
"""The bookkeeping of memories is the same at any size; this one is the quickest."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Held:
    """What is held after some frames.

    Attributes:
        engine: As in `Setting`.
        size: Side of the network's input in pixels.
        objects: Objects of the one stream.
        frame: Frames tracked since the prompt.
        state_bytes: Sum of the tensors that the stream keeps.
        process_bytes: Resident memory of the whole process.
        device_bytes: Memory that tensors take on a CUDA device; 0 without one.
    """

    engine: str
    size: int
    objects: int
    frame: int
    state_bytes: int
    process_bytes: int
    device_bytes: int


def touchline_growth(device: torch.device, objects: int, frames: int) -> list[Held]:
    """Track objects in frame mode with a small random network; a sample at each power of ten."""
    torch.manual_seed(0)
    engine = StreamingEngine(architecture.random_compact(_SMALLEST), str(device), torch.float32)
    tracker = Tracker(engine, "frame", slots=1, ttl_s=float("inf"), max_objects=objects)
    frame = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    boxes = np.array([[k, k, k + 16, k + 32] for k in range(objects)], np.float32)
    tracker.start(1)
    tracker.step(StepRequest(1, frame, np.arange(1, objects + 1), boxes))
    samples = []
    for count in range(1, frames + 1):
        tracker.step(StepRequest(1, frame))
        if count in (10, 100, 1_000, frames):
            held = tracker.usage().nbytes
            samples.append(_held("touchline", engine.image_size, objects, count, held, device))
    return samples


def official_growth(start: OfficialStart, frames: int) -> list[Held]:
    """Track one object with upstream's predictor; a sample early and one at the end."""
    contender, size, device = (
        Official(start, 1, 1),
        start.predictor.image_size,
        start.predictor.device,
    )
    samples = []
    for count in range(1, frames + 1):
        contender.step()
        if count in (max(1, frames // 10), frames):
            held = state_bytes(contender.states[0])
            samples.append(_held("official", size, 1, count, held, device))
    return samples


def bytes_per_frame(samples: list[Held]) -> float:
    """Growth of the state from the first to the last sample, per object and frame."""
    first, last = samples[0], samples[-1]
    grown = last.state_bytes - first.state_bytes
    return grown / (last.frame - first.frame) / last.objects


def state_bytes(state: dict[str, Any]) -> int:
    """Return the size of all distinct tensors in a state of the official predictor."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in _tensors(state)}
    return sum(storage.nbytes() for storage in storages.values())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key != "images":  # upstream holds the whole video here; ours is one picture
                yield from _tensors(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _tensors(inner)


def _held(
    engine: str, size: int, objects: int, frame: int, held: int, device: torch.device
) -> Held:
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    on_device = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    return Held(engine, size, objects, frame, held, resident, on_device)
