"""RF-DETR checkpoints by size: published ones, soccer fine-tunes of them, and our own small one."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rfdetr import RFDETRLarge, RFDETRMedium, RFDETRNano, RFDETRSmall
from rfdetr.config import ModelConfig
from rfdetr.detr import RFDETR

from training.detector.micro import RFDETRMicro
from training.errors import InputError
from training.torch_file import load_torch

SIZES: dict[str, type[RFDETR]] = {
    "micro": RFDETRMicro,
    "nano": RFDETRNano,
    "small": RFDETRSmall,
    "medium": RFDETRMedium,
    "large": RFDETRLarge,
}
"""Classes by size; all but `micro`, ours, are published by Roboflow under Apache-2.0."""


def load(size: str, checkpoint: Path) -> RFDETR:
    """Load a checkpoint in rfdetr's layout, `{"model": state dict, "args": ...}`.

    Classes and resolution are those of the checkpoint: 90 of COCO, 4 of a soccer fine-tune.

    Raises:
        FileNotFoundError: The file is missing; nothing is downloaded here.
        InputError: The size is unknown, or the checkpoint is of another one.
    """
    if size not in SIZES:
        raise InputError(f"size: expected one of {', '.join(SIZES)}, got {size!r}")
    if not checkpoint.is_file():
        raise FileNotFoundError(f"{checkpoint}: expected a checkpoint of RF-DETR {size}")
    try:
        sizes = _trained_sizes(checkpoint)
        return SIZES[size](pretrain_weights=str(checkpoint), device="cpu", **sizes)
    except (RuntimeError, KeyError) as error:
        raise InputError(
            f"{checkpoint}: expected a checkpoint of RF-DETR {size}: {error}"
        ) from error


def labels(model: RFDETR, *, given: str | None = None) -> list[str]:
    """Return the label of each logit column but the last.

    Args:
        model: A loaded model.
        given: Comma list that overrides the names in the checkpoint.

    Raises:
        InputError: There are not as many names as classes, or one is empty.
    """
    classes = int(model.model_config.num_classes)
    # As the comma list that the file will tell them in.
    told = given or ",".join(str(name) for name in model.class_names)
    names = [name.strip() for name in told.split(",")]
    if len(names) != classes or not all(names):
        raise InputError(f"labels: expected {classes} names, got {len(names)}: {names}")
    return names


def model_config(
    size: str, *, labels: Sequence[str], resolution: int, init: Path | None
) -> ModelConfig:
    """Return rfdetr's description of a network that is to be trained.

    Args:
        size: One of `SIZES`.
        labels: What it tells apart.
        resolution: Side of its square input, in pixels; a multiple of 32.
        init: Checkpoint to start from, of the same size but of any labels and resolution; None for
            random weights.
    """
    kind = SIZES[size]
    # rfdetr asks a model for its description before it builds the network; so do we, without one.
    config: ModelConfig = kind.__new__(kind).get_model_config(
        num_classes=len(labels),
        resolution=resolution,
        pretrain_weights=None if init is None else str(init),
    )
    return config


def read(checkpoint: Path) -> dict[str, Any]:
    """Return what lies in a checkpoint of rfdetr.

    Raises:
        InputError: The file is damaged or of something else.
    """
    with torch.serialization.safe_globals([Namespace]):
        content = load_torch(checkpoint)
    if not isinstance(content, dict) or "model" not in content:
        raise InputError(f"{checkpoint}: expected a checkpoint of RF-DETR, with the key `model`")
    return content


def _trained_sizes(checkpoint: Path) -> dict[str, Any]:
    """Return the number of classes, and the resolution but where it is left to the size's class.

    Told fewer classes than there are, rfdetr would draw the head anew.
    """
    content = read(checkpoint)
    trained = content.get("model_config", {})
    resolution = {"resolution": trained["resolution"]} if "resolution" in trained else {}
    background = 1
    return {"num_classes": len(content["model"]["class_embed.bias"]) - background, **resolution}
