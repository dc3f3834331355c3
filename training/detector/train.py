"""The demo detector: a small RF-DETR of rfdetr's own classes, trained from scratch on clips.

`python -m training.detector.train --footage DIR --work WORK --minutes 74` writes the tiles to
`WORK/tiles`, trains into `WORK/run`, and goes on from there when started again.
"""

import argparse
import math
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import pytorch_lightning as lightning
import torch
from pydantic import Field
from rfdetr import RFDETRNano
from rfdetr.config import MultiScale, RFDETRNanoConfig, TrainConfig
from rfdetr.models.backbone import dinov2
from rfdetr.training import RFDETRDataModule, RFDETRModelModule, build_trainer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from typing_extensions import override

from training.detector.tiles import LABELS, RESOLUTION, write_dataset

ENCODER_WIDTH = 96
STEPS_PER_EPOCH = 750
"""An epoch is only the distance between two checkpoints: about five minutes on one core."""

# rfdetr looks its encoders up by name; an absolute path to the configuration is taken as it is.
# Source: rfdetr 1.11.2, models/backbone/dinov2.py, get_config.
dinov2.size_to_config["micro"] = str(Path(__file__).with_name("dinov2_micro.json"))
dinov2.size_to_width["micro"] = ENCODER_WIDTH


class RFDETRMicroConfig(RFDETRNanoConfig):
    """RF-DETR Nano with a 96 x 4 encoder: 416 px tiles at 14 CPU-ms each, from scratch.

    Attributes:
        group_detr: Parallel query groups in training; one of them serves.
    """

    encoder: Literal["dinov2_windowed_micro"] = "dinov2_windowed_micro"  # type: ignore[assignment]
    out_feature_indexes: list[int] = Field(default=[2, 4])
    hidden_dim: int = ENCODER_WIDTH
    sa_nheads: int = 4
    ca_nheads: int = 8
    num_queries: int = 60
    num_select: int = 60
    group_detr: int = 5
    resolution: int = RESOLUTION
    positional_encoding_size: int = RESOLUTION // 16
    pretrain_weights: str | None = None
    num_classes: int = len(LABELS)
    device: Literal["cpu"] = "cpu"


class RFDETRMicro(RFDETRNano):
    """The model that loads checkpoints of `RFDETRMicroConfig`, through `pretrain_weights`."""

    size = "rfdetr-micro"
    _model_config_class = RFDETRMicroConfig  # type: ignore[assignment]


class WallClockCosine(LRScheduler):
    """Linear warm-up, then a cosine that reaches 0 when a time budget is spent.

    The speed of a shared machine is not known beforehand, so time and not the number of steps says
    how far training has come. Time between an interruption and the resumption does not count.
    """

    def __init__(self, optimizer: Optimizer, budget_s: float, warmup_steps: int) -> None:
        self._budget_s = budget_s
        self._warmup_steps = warmup_steps
        self._started = time.monotonic()
        super().__init__(optimizer)

    @override
    def get_lr(self) -> list[float | torch.Tensor]:
        """Return the learning rate of each parameter group now."""
        spent = min(1.0, self._elapsed_s / self._budget_s)
        warmth = min(1.0, (self.last_epoch + 1) / self._warmup_steps)
        factor = warmth * (1 + math.cos(math.pi * spent)) / 2
        return [base * factor for base in self.base_lrs]

    @override
    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: steps, seconds and base rates."""
        return {
            "last_epoch": self.last_epoch,
            "elapsed_s": self._elapsed_s,
            "base_lrs": self.base_lrs,
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from `state_dict` as if no time had passed since."""
        self.last_epoch = state_dict["last_epoch"]
        self.base_lrs = state_dict["base_lrs"]
        self._started = time.monotonic() - state_dict["elapsed_s"]

    @property
    def _elapsed_s(self) -> float:
        return time.monotonic() - self._started


def train(dataset: Path, run: Path, minutes: float, seed: int) -> Path:
    """Train for `minutes` of wall time, going on from `run/last.ckpt` if there is one.

    Args:
        dataset: Folder written by `training.detector.tiles.write_dataset`.
        run: Folder for checkpoints and metrics.
        minutes: Budget of all runs in this folder together.
        seed: Seed of weights and order of tiles.

    Returns:
        The checkpoint of the averaged (EMA) weights at the end.
    """
    lightning.seed_everything(seed)
    model_config = RFDETRMicroConfig()
    train_config = _train_config(dataset, run, minutes, seed)
    trainer = build_trainer(
        train_config,
        model_config,
        accelerator="cpu",
        max_time=timedelta(minutes=minutes),
        limit_train_batches=STEPS_PER_EPOCH,
    )
    last = run / "last.ckpt"
    trainer.fit(
        RFDETRModelModule(model_config, train_config),
        RFDETRDataModule(model_config, train_config),
        ckpt_path=str(last) if last.exists() else None,
        weights_only=False,  # our own file, and it holds optimizer state beside the weights
    )
    return run / "last_ema.pth"


def _train_config(dataset: Path, run: Path, minutes: float, seed: int) -> TrainConfig:
    return TrainConfig(
        dataset_dir=str(dataset),
        output_dir=str(run),
        epochs=1000,  # the time budget ends the run
        batch_size=4,
        lr=8e-4,
        lr_encoder=8e-4,
        # Both decays protect pretrained layers; here every layer starts from nothing.
        lr_vit_layer_decay=1.0,
        lr_component_decay=1.0,
        lr_scheduler=partial(WallClockCosine, budget_s=60 * minutes, warmup_steps=150),
        ema_decay=0.998,
        ema_tau=500,
        # The tiles come in all scales already.
        multi_scale=MultiScale.OFF,
        scale_jitter=False,
        num_workers=0,
        seed=seed,
        eval_backend="faster_coco_eval",  # the default one needs numpy 2
        run_test=False,
        tensorboard=False,
        checkpoint_interval=1000,  # `last.ckpt` is written after every epoch anyway
    )


def main() -> None:
    """Write the tiles and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--footage", type=Path, required=True, help="folder of rendered clips")
    parser.add_argument("--work", type=Path, required=True, help="folder for tiles and checkpoints")
    parser.add_argument("--minutes", type=float, default=55.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    write_dataset(arguments.footage, arguments.work / "tiles", arguments.seed)
    train(arguments.work / "tiles", arguments.work / "run", arguments.minutes, arguments.seed)


if __name__ == "__main__":
    main()
