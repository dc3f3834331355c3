"""A stand-in for TritonClient in unit tests: answers from a scene, with faults on demand.

The real server is used in tests/contract and tests/stream.
"""

import math
from collections.abc import Callable, Mapping, MutableSequence
from dataclasses import dataclass, field

import numpy as np

from orchestrator.contracts import (
    RESNET_JERSEY,
    RFDETR_DETECTOR,
    SAM2_TRACKER,
    SIGLIP_EMBEDDER,
    SIGLIP_TEXT,
    ModelContract,
)
from orchestrator.errors import ModelError, ModelUnavailableError
from orchestrator.triton.client import SequenceStep
from orchestrator.triton.codec import LiveModel, Tensor, check
from orchestrator.types.streams import Caller

_SIZES = {
    "rfdetr_detector": {"R": 64, "Q": 8, "L": 3},
    "siglip_embedder": {"S": 16, "D": 4},
    "siglip_text": {"D": 4},
}
_PARAMETERS = {
    "rfdetr_detector": {"thresholds": "0.4,0.3", "tiles": "1"},
}


@dataclass
class ScriptedTriton:
    """Answers like the five models would.

    Attributes:
        scene: Detector output by call: rows of (cx, cy, w, h, label column, logit), as shares.
        move: SAM2's view: from (object id, frames since prompt, prompted box) to (box, score).
        faults: Errors to raise, by model name; taken one by one.
        mask: Run lengths of every mask.
        observes: Whether SAM2 looks for its objects, or carries them on by motion.
        missing: Models that have not come yet.
        labels: Of the detector; without a ball it is asked once a frame.
        calls: Every request seen: (model name, inputs, sequence step).
    """

    scene: Callable[[int], list[tuple[float, ...]]] = lambda call: []
    move: Callable[[int, int, np.ndarray], tuple[np.ndarray, float]] = lambda i, n, box: (box, 0.9)
    embed: Callable[[np.ndarray], np.ndarray] = lambda crop: np.eye(4, dtype=np.float32)[0]
    faults: dict[str, list[ModelError | None]] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    labels: str = "person,ball"
    mask: bytes = b"RLE"
    observes: bool = True
    calls: MutableSequence[tuple[str, dict[str, Tensor], SequenceStep | None]] = field(
        default_factory=list
    )
    objects: dict[int, tuple[int, np.ndarray]] = field(default_factory=dict)

    def for_caller(self, caller: Caller) -> "ScriptedTriton":
        return self

    def snapshot(self) -> tuple[()]:
        return ()

    @property
    def models(self) -> tuple[LiveModel, ...]:
        contracts = (RFDETR_DETECTOR, SAM2_TRACKER, SIGLIP_EMBEDDER, SIGLIP_TEXT, RESNET_JERSEY)
        return tuple(self.model(each) for each in contracts if each.name not in self.missing)

    def model(self, contract: ModelContract) -> LiveModel:
        name = contract.name
        if name in self.missing:
            raise ModelUnavailableError(name, "no replica (no endpoint)")
        parameters = {"weights": self.weights.get(name, "demo"), "labels": self.labels}
        parameters |= _PARAMETERS.get(name, {})
        return LiveModel(contract, 8, _SIZES.get(name, {}), parameters)

    def seen(self, name: str) -> list[tuple[dict[str, Tensor], SequenceStep | None]]:
        return [(inputs, step) for model, inputs, step in self.calls if model == name]

    async def infer(
        self,
        contract: ModelContract,
        inputs: Mapping[str, Tensor],
        *,
        step: SequenceStep | None = None,
        timeout_s: float | None = None,
        deadline: float = math.inf,
    ) -> dict[str, Tensor]:
        model = self.model(contract)
        for name, array in inputs.items():
            check(model, name, array)
        self.calls.append((contract.name, dict(inputs), step))
        faults = self.faults.get(contract.name, [])
        fault = faults.pop(0) if faults else None
        if fault is not None:
            raise fault
        outputs = getattr(self, f"_{contract.name}")(inputs, step)
        for name, array in outputs.items():
            check(model, name, array)
        return outputs

    def _rfdetr_detector(self, inputs, step):
        call = len(self.seen("rfdetr_detector")) - 1
        boxes = np.zeros((1, 8, 4), np.float32)
        logits = np.full((1, 8, 3), -9.0, np.float32)
        for row, (cx, cy, w, h, label, logit) in enumerate(self.scene(call)):
            boxes[0, row] = cx, cy, w, h
            logits[0, row, int(label)] = logit
        return {"boxes": boxes, "logits": logits}

    def _sam2_tracker(self, inputs, step):
        assert step is not None
        if step.is_start:
            self.objects.clear()
        for object_id in inputs.get("forget_object_ids", np.zeros((1, 0)))[0]:
            self.objects.pop(int(object_id), None)
        self.objects = {i: (age + 1, box) for i, (age, box) in self.objects.items()}
        if "prompt_object_ids" in inputs:
            for object_id, box in zip(
                inputs["prompt_object_ids"][0], inputs["prompt_boxes"][0], strict=True
            ):
                self.objects[int(object_id)] = (0, box)
        answers = {i: self.move(i, age, box) for i, (age, box) in sorted(self.objects.items())}
        count = len(answers)
        return {
            "object_ids": np.array([list(answers)], np.int64).reshape(1, count),
            "boxes": np.array([[box for box, _ in answers.values()]], np.float32).reshape(
                1, count, 4
            ),
            "scores": np.array([[score for _, score in answers.values()]], np.float32),
            "masks": np.array([[self.mask] * count], np.object_).reshape(1, count),
            "observed": np.full((1, count), self.observes),
        }

    def _siglip_embedder(self, inputs, step):
        return {"embedding": np.stack([self.embed(crop) for crop in inputs["crops"]])}

    def _siglip_text(self, inputs, step):
        kits = {b"red": 0, b"blue": 1}
        rows = [np.eye(4, dtype=np.float32)[kits.get(text, 2)] for (text,) in inputs["text"]]
        return {"embedding": np.stack(rows)}

    def _resnet_jersey(self, inputs, step):
        n = len(inputs["crops"])
        tens, units = np.zeros((n, 11), np.float32), np.zeros((n, 10), np.float32)
        tens[:, 10], units[:, 7] = 9, 9
        return {
            "number_visible": np.full((n, 1), 5, np.float32),
            "tens": tens,
            "units": units,
            "role": np.tile(np.array([9, 0, 0, 0], np.float32), (n, 1)),
            "kit_colour": np.zeros((n, 11), np.float32),
        }
