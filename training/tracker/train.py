"""Fine-tune SAM2 to follow players in windows, or train the compact one from scratch.

Memory is trained by back-propagation through whole tracklets; each object is a row of the batch,
with its neighbours in the picture as distractors.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
import torch
from pydantic import Field, model_validator
from sam2.modeling.sam2_base import SAM2Base
from sam2_streaming.architecture import CompactConfig
from sam2_streaming.windows import COVER
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from training.run.config import RunConfig, Stage
from training.run.folder import data_folder
from training.run.hardware import Hardware
from training.run.loop import Batch, Loop, begin
from training.tracker import squares
from training.tracker.network import save, start
from training.tracker.objective import (
    LossWeights,
    Outputs,
    is_present,
    loss,
    mask_iou,
    track,
)
from training.tracker.prompts import Prompt, Prompts, draw
from training.tracker.tracklets import Difficulty, Tracklets

_SQUARE_PER_WINDOW = squares.COVER / COVER
_OLD_PROMPTS = 0.5  # share of batches whose prompt looks up to `_MAX_AGE` frames old
_MAX_AGE = 400

_SCORED_FRAMES = 6
_SCORED_BATCHES = 7
_SCORED_PROMPTS = Prompts(box_noise=0.03)
_PLAIN = {"crowded": 0.0, "slipping": 0.0, "crossed": 0.0, "interrupted": 0.0, "augmented": False}
_SCORED = {
    name: Difficulty.model_validate(_PLAIN | trouble)
    for name, trouble in {
        "all": {},
        "crowded": {"crowded": 1},
        "slipping": {"crowded": 1, "slipping": 1},
        "crossed": {"crossed": 1},
        "interrupted": {"crossed": 1, "interrupted": 1},
    }.items()
}


class TrackerStage(Stage):
    """A stage of tracklets."""

    frames: int = Field(default=6, ge=2)
    """Length of a tracklet."""
    difficulty: Difficulty = Difficulty()
    prompts: Prompts = Prompts()
    loss: LossWeights = LossWeights()


class Config(RunConfig):
    """How a tracker is trained."""

    stages: tuple[TrackerStage, ...] = Field(min_length=1)
    init: Path | None = None
    """Published checkpoint under its own name, or a compact one; absent: start from nothing."""
    compact: CompactConfig = CompactConfig()
    """Sizes of the network that starts from nothing."""
    image_size: int | None = Field(default=None, multiple_of=32, gt=0)
    """Side of the windows for a published checkpoint in pixels; absent: its own 1024."""
    freeze_encoder: bool = False
    """Keep the image encoder as it is: less memory, less to forget."""
    windows: int = Field(default=64, gt=0)
    """Windows in a batch: tracklets times their frames."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.clips.train) < 2 or len(self.clips.held_out) == 1:
            raise ValueError(
                "expected two or more clips.train and clips.held_out: strangers come from another"
            )
        if any(stage.frames > self.windows for stage in self.stages):
            raise ValueError("expected windows to be at least the frames of every stage")
        return self


class TrackerTask:
    """SAM2 in player windows.

    Args:
        config: How.
        network: From `start`.
        training: Tracklets to learn.
        held_out: Tracklets to be scored on, if any.
    """

    def __init__(
        self, config: Config, network: SAM2Base, training: Tracklets, held_out: Tracklets | None
    ) -> None:
        self.network = network
        network.image_encoder.requires_grad_(not config.freeze_encoder)
        self._windows, self._hardware = config.windows, Hardware.of(config)
        self._training, self._held_out = training, held_out

    def draw(self, stage: TrackerStage, rng: np.random.Generator) -> Batch:
        """Return `pictures`, `masks`, a prompt and the age that it seems to have."""
        batch = _batch(
            self._training, self._windows // stage.frames, stage.frames, stage.difficulty,
            stage.prompts, rng,
        )  # fmt: skip
        is_old = rng.random() < _OLD_PROMPTS
        age = int(np.exp(rng.uniform(0, np.log(_MAX_AGE)))) if is_old else 1
        return batch | {"first_age": torch.tensor(age)}

    def loss(self, batch: Batch, stage: TrackerStage) -> Tensor:
        """Return the loss of a batch of tracklets."""
        outputs = self._track(self.network, batch, int(batch["first_age"]))
        return loss(outputs, batch["masks"], stage.loss)

    @torch.no_grad()
    def scores(self, network: nn.Module) -> dict[str, float]:
        """Return mean IoU by kind of trouble and frame, and how well presence separates.

        Presence is scored where people cross and whole frames show somebody else:
        `presence_recall` and `absence_recall` are the shares judged right of either.
        """
        if self._held_out is None:
            return {}
        scores: dict[str, float] = {}
        for name, difficulty in _SCORED.items():
            logits, presence, masks = self._held_out_run(network, self._held_out, difficulty)
            present, iou = is_present(masks), mask_iou(logits, masks)
            iou[~present] = torch.nan
            for frame, value in enumerate(iou.nanmean(1).tolist()):
                scores[f"iou_{name}_{frame}"] = value
            if difficulty.interrupted:
                scores["presence_recall"] = float((presence > 0)[present].float().mean())
                scores["absence_recall"] = float((presence <= 0)[~present].float().mean())
        return scores

    def _held_out_run(
        self, network: nn.Module, held_out: Tracklets, difficulty: Difficulty
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return mask logits, presence logits and true masks of the same tracklets every time."""
        tracklets = max(self._windows // _SCORED_FRAMES, 1)
        parts = []
        for index in range(_SCORED_BATCHES):
            rng = np.random.default_rng(index)
            drawn = _batch(held_out, tracklets, _SCORED_FRAMES, difficulty, _SCORED_PROMPTS, rng)
            batch = {name: value.to(self._hardware.device) for name, value in drawn.items()}
            outputs = self._track(network, batch, 1)
            logits = torch.stack([one.best_logits for one in outputs])
            parts.append((logits, torch.stack([one.presence for one in outputs]), batch["masks"]))
        logits, presence, masks = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
        return logits, presence, masks

    def _track(self, network: nn.Module, batch: Batch, first_age: int) -> list[Outputs]:
        with self._hardware.autocast(), _attention(self._hardware.device):
            return track(network, batch["pictures"], Prompt.of(batch), first_age)


def _batch(
    tracklets: Tracklets,
    count: int,
    frames: int,
    difficulty: Difficulty,
    prompts: Prompts,
    rng: np.random.Generator,
) -> Batch:
    pictures, masks = tracklets.batch(rng, count, frames, difficulty)
    drawn = {"pictures": torch.from_numpy(pictures), "masks": torch.from_numpy(masks)}
    return drawn | draw(masks[0], prompts, rng)


@contextmanager
def _attention(device: torch.device) -> Iterator[None]:
    """Choose the plain kernel on CPU: the fused one is slow backwards at few tokens."""
    if device.type != "cpu":
        yield
        return
    with sdpa_kernel(SDPBackend.MATH):
        yield


def train(config: Config, footage: Path, work: Path) -> Path:
    """Train, going on with an earlier run of the same config in `work`.

    Args:
        config: How.
        footage: Folder of rendered clips with masks.
        work: Folder of the extracted squares, the run's state and the weights.

    Returns:
        The weights as the tracker serves them: `tracker.safetensors`, or a published architecture
        under its own name.

    Raises:
        InputError: Config, `init` or footage do not fit, or `work` holds another run.
    """
    run, clips = begin(config, work), config.clips
    network = start(config.init, config.compact, config.image_size)
    size = network.image_size
    training = _tracklets(clips.train, footage, work, size)
    held_out = _tracklets(clips.held_out, footage, work, size) if clips.held_out else None
    task = TrackerTask(config, network, training, held_out)
    return save(Loop(task, config.stages, config, run).run(), config.init, work)


def _tracklets(clips: tuple[str, ...], footage: Path, work: Path, size: int) -> Tracklets:
    square_px = round(_SQUARE_PER_WINDOW * size)
    folder = data_folder(work, f"squares{square_px}", footage, clips)
    squares.extract(footage, clips, folder, square_px)
    return Tracklets(folder, size)
