"""Fine-tune a ResNet to read number, role and shirt colour of one person's crop.

At the end the beliefs are calibrated on clips of their own, and scored on further ones.
"""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from training.data.crops import CropSet
from training.jersey.batches import IGNORED, close_up_batch, whole_batch
from training.jersey.checkpoints import save, start
from training.jersey.evaluate import calibrate, scores, torch_reader
from training.jersey.net import HEADS, JerseyNet
from training.run.config import RunConfig, Split, Stage
from training.run.crops import run_crops
from training.run.hardware import Hardware
from training.run.loop import Batch, Loop, begin
from training.whole_file import write_whole

_LABEL_SMOOTHING = 0.02
_WATCHED_BELIEF = 0.5


class JerseyStage(Stage):
    """A stage of crops."""

    close_ups: float = Field(default=0.0, ge=0, le=1)
    """Share of batches that show windows about readable numbers, at a quarter of the cost."""
    natural: float = Field(default=0.3, ge=0, le=1)
    """Share of whole crops that are as in the clips; the others show readable numbers."""


class JerseySplit(Split):
    """Clips to learn, to calibrate on, and to score on."""

    calibration: tuple[str, ...] = ()


class Config(RunConfig):
    """How a jersey network is trained."""

    clips: JerseySplit
    stages: tuple[JerseyStage, ...] = Field(min_length=1)
    backbone: Literal["resnet10", "resnet18", "resnet34", "resnet50"] = "resnet10"
    init: Path | None = None
    """torchvision's state dict of the backbone, or a `jersey.pt`; absent: start from nothing."""
    batch_size: int = Field(default=64, gt=1)
    """Crops in a batch."""


class JerseyTask:
    """A ResNet with a head for each question.

    Args:
        config: How.
        network: From `start`.
        training: Crops to learn.
        held_out: Crops to be scored on, if any.
    """

    def __init__(
        self, config: Config, network: JerseyNet, training: CropSet, held_out: CropSet | None
    ) -> None:
        self.network = network
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._batch_size, self._hardware = config.batch_size, Hardware.of(config)
        self._training, self._held_out = training, held_out

    def draw(self, stage: JerseyStage, rng: np.random.Generator) -> Batch:
        """Return `crops` and the target of every head."""
        if rng.random() < stage.close_ups:
            return close_up_batch(self._training, self._batch_size, rng)
        return whole_batch(self._training, self._batch_size, stage.natural, rng)

    def loss(self, batch: Batch, stage: JerseyStage) -> Tensor:  # noqa: ARG002  the same for all
        """Return the loss of a batch of crops."""
        with self._hardware.autocast():
            logits = self.network(batch["crops"])
        return loss({name: head.float() for name, head in zip(HEADS, logits, strict=True)}, batch)

    def scores(self, network: nn.Module) -> dict[str, float]:
        """Return what tells whether training gets on; the beliefs are not calibrated yet."""
        if self._held_out is None:
            return {}
        found = scores(torch_reader(network), self._held_out)
        number = next(one for one in found["number"] if one["threshold"] == _WATCHED_BELIEF)
        watched = {
            "number_visible_average_precision": found["number_visible_average_precision"],
            "number_precision": number["precision"],
            "number_coverage": number["coverage"],
            "role_accuracy": found["role"]["accuracy"],
            "kit_colour_accuracy": found["kit_colour_accuracy"],
        }
        return {name: value for name, value in watched.items() if value is not None}


def loss(logits: dict[str, Tensor], truth: dict[str, Tensor]) -> Tensor:
    """Return the sum of the heads' mean cross entropies over the rows that have a truth."""
    total = next(iter(logits.values())).new_zeros(())
    for name, predicted in logits.items():
        target = truth[name]
        known = target != IGNORED
        if not known.any():
            continue
        if name == "number_visible":
            total = total + functional.binary_cross_entropy_with_logits(
                predicted[known, 0], target[known].float()
            )
        else:
            total = total + functional.cross_entropy(
                predicted[known], target[known], label_smoothing=_LABEL_SMOOTHING
            )
    return total


def train(config: Config, footage: Path, work: Path) -> Path:
    """Train and calibrate, going on with an earlier run of the same config in `work`.

    Args:
        config: How.
        footage: Folder of rendered clips with masks.
        work: Folder of the crops, the run's state, and the result.

    Returns:
        `jersey.pt`, the calibrated weights with the name of their backbone; `jersey.json` beside
        it holds their scores.

    Raises:
        InputError: Config, `init` or footage do not fit, or `work` holds another run.
    """
    run, clips = begin(config, work), config.clips
    network = start(config.backbone, config.init)
    training = run_crops(footage, clips.train, work)
    held_out = run_crops(footage, clips.held_out, work) if clips.held_out else None
    task = JerseyTask(config, network, training, held_out)
    trained: Any = Loop(task, config.stages, config, run).run().cpu()
    report: dict[str, Any] = {}
    if clips.calibration:
        calibration = run_crops(footage, clips.calibration, work)
        report["temperatures"] = calibrate(trained, calibration)
    if held_out is not None:
        report |= scores(torch_reader(trained), held_out)
    write_whole(work / "jersey.json", json.dumps(report, indent=1).encode())
    return save(trained, work / "jersey.pt")
