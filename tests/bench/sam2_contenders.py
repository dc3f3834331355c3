"""The engines that `make bench-sam2` compares, each with objects whose memory is already full.

An object's cost grows until its memory is full, after 15 frames. Running those frames at 1024 px
would take most of an hour, so memories are filled with copies of real entries instead; tests show
that such an object costs exactly as much as one that was tracked for real.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Literal, Protocol
from unittest.mock import patch

import numpy as np
import torch
from sam2.modeling.sam2_base import SAM2Base
from sam2_streaming import architecture
from sam2_streaming.engine import Estimates, Images, Resolve, StreamingEngine, Target
from sam2_streaming.memory import MemoryLimits, ObjectMemory
from sam2_streaming.prompts import Prompt
from sam2_streaming.requests import StepRequest
from sam2_streaming.tracker import Tracker
from torch.utils.flop_counter import FlopCounterMode

from tests.bench.sam2_official import (
    VIDEO_SHAPE,
    Official,
    OfficialStart,
    in_sight,
    player_boxes,
    random_predictor,
)

COMPACT = "compact"
"""Name of the product's small network, beside the keys of `architecture.OFFICIAL_CONFIGS`."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured.

    Attributes:
        network: `COMPACT` or a key of `architecture.OFFICIAL_CONFIGS`; the weights are random.
        engine: `official` is `SAM2VideoPredictor`, `touchline` is `sam2_streaming`.
        mode: `frame` shows the network the whole frame, `window` a cut around each object.
        size: Side of the network's input in pixels.
        dtype: `bfloat16` under autocast, or `float32`.
        objects: Objects in each stream.
        streams: Streams stepped together.
    """

    network: str
    engine: Literal["official", "touchline"]
    mode: Literal["frame", "window"]
    size: int
    dtype: Literal["bfloat16", "float32"]
    objects: int
    streams: int

    @property
    def torch_dtype(self) -> torch.dtype:
        """`dtype` as torch names it."""
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32


class Contender(Protocol):
    """An engine with streams full of objects."""

    def step(self) -> None:
        """Track every object of every stream through one more frame."""


class Contenders:
    """Makes contenders of equal weights and keeps the networks for the next.

    Attributes:
        device: Where they run; `meta` computes nothing and only knows shapes.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._official: dict[tuple[str, int, str], OfficialStart] = {}
        self._engines: dict[tuple[str, int, str], StreamingEngine] = {}

    def make(self, setting: Setting) -> Contender:
        """Return a contender in its steady state."""
        key = setting.network, setting.size, setting.dtype
        if setting.engine == "official":
            if key not in self._official:
                predictor = random_predictor(setting.network, setting.size).to(self.device)
                self._official[key] = OfficialStart(predictor)
            return Official(self._official[key], setting.objects, setting.streams)
        if key not in self._engines:
            network = random_network(setting.network, setting.size)
            kind = ShapeEngine if self.device.type == "meta" else WarmEngine
            self._engines[key] = kind(network, str(self.device), setting.torch_dtype)
        engine = self._engines[key]
        made = TouchlineShapes if isinstance(engine, ShapeEngine) else Touchline
        return made(engine, setting.mode, setting.objects, setting.streams)


def random_network(network: str, size: int) -> SAM2Base:
    """Return a network with random weights, fp32 on CPU."""
    torch.manual_seed(0)
    if network == COMPACT:
        config = architecture.CompactConfig(image_size=size)
        return in_sight(architecture.random_compact(config))
    return in_sight(architecture.random_official(network, size))


class WarmEngine(StreamingEngine):
    """An engine whose objects have a full memory from their first frame on."""

    def step(self, images: Images, targets: Sequence[Target], resolve: Resolve) -> Estimates:
        """See `StreamingEngine.step`."""
        estimates = super().step(images, targets, resolve)
        memories = [filled(memory, self._reader.limits) for memory in estimates.memories]
        return replace(estimates, memories=memories)


class ShapeEngine(WarmEngine):
    """An engine on the `meta` device, which computes nothing and only knows shapes."""

    def step(self, images: Images, targets: Sequence[Target], resolve: Resolve) -> Estimates:
        """See `StreamingEngine.step`."""
        # There is no autocast for this device, and it would not change a count.
        with patch.object(torch, "autocast", lambda *_, **__: nullcontext()):
            return super().step(images, targets, resolve)


def filled(memory: ObjectMemory, limits: MemoryLimits) -> ObjectMemory:
    """Return a memory that has been full for a while, with copies of the prompted frame's."""
    while memory.fill != limits:
        memory = memory.after(memory.prompt_map.clone(), memory.prompt_pointer.clone(), limits)
    return memory


class Touchline:
    """Streams of the product's tracker: cutting, exclusion and run lengths of masks are counted."""

    def __init__(
        self, engine: StreamingEngine, mode: Literal["frame", "window"], objects: int, streams: int
    ) -> None:
        self._objects = objects
        self._frame = np.random.default_rng(0).integers(0, 256, (*VIDEO_SHAPE, 3), np.uint8)
        self._sequences = range(1, streams + 1)
        self.tracker = Tracker(
            engine,
            mode,
            slots=streams,
            ttl_s=float("inf"),
            batches_sequences=engine.device.type != "cpu",  # as the product serves
            max_objects=objects,
        )
        prompts = np.arange(1, objects + 1), player_boxes(objects)
        for sequence in self._sequences:
            self.tracker.start(sequence)
            self.tracker.step(StepRequest(sequence, self._frame, *prompts))

    def step(self) -> None:
        """See `Contender`."""
        requests = [StepRequest(sequence, self._frame) for sequence in self._sequences]
        for outcome in self.tracker.step_many(requests):
            if isinstance(outcome, Exception):
                raise outcome
            if len(outcome.object_ids) != self._objects:
                raise RuntimeError(
                    f"{len(outcome.object_ids)} of {self._objects} objects came back"
                )


class TouchlineShapes:
    """What the network is given in a step of `Touchline`, on the `meta` device.

    The tracker itself needs real values: where a mask is decides what is cut out.
    """

    def __init__(
        self, engine: ShapeEngine, mode: Literal["frame", "window"], objects: int, streams: int
    ) -> None:
        self._engine = engine
        each = range(objects * streams)
        images = [k if mode == "window" else k // objects for k in each]
        shape = (images[-1] + 1, engine.image_size, engine.image_size, 3)
        self._pictures = torch.zeros(shape, dtype=torch.uint8, device="meta")
        start = Target(0, prompt=Prompt.box(player_boxes(1)[0]))
        (memory,) = engine.step(self._pictures[:1], [start], lambda logits: logits).memories
        self._targets = [Target(image, memory) for image in images]

    def step(self) -> None:
        """See `Contender`."""
        self._engine.step(self._pictures, self._targets, lambda logits: logits)


def gflop(contender: Contender) -> float:
    """Return the billions of operations of one step; a multiplication with its addition is two.

    Counts matrix products, convolutions and attention. The contender must be on the `meta` device:
    on a CPU torch 2.12.1 does not count `scaled_dot_product_attention`.
    """
    with FlopCounterMode(display=False) as counter:
        contender.step()
    return counter.get_total_flops() / 1e9
