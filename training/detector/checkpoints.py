"""RF-DETR checkpoints by size: published ones, soccer fine-tunes of them, and our own small one."""

from pathlib import Path

from rfdetr import RFDETRLarge, RFDETRMedium, RFDETRNano, RFDETRSmall
from rfdetr.detr import RFDETR

from training.detector.train import RFDETRMicro

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

    The number of classes is that of the checkpoint: 90 of COCO, 4 of a soccer fine-tune.

    Raises:
        FileNotFoundError: The file is missing; nothing is downloaded here.
        ValueError: The size is unknown, or the checkpoint is of another one.
    """
    if size not in SIZES:
        raise ValueError(f"size: expected one of {', '.join(SIZES)}, got {size!r}")
    if not checkpoint.is_file():
        raise FileNotFoundError(f"{checkpoint}: expected a checkpoint of RF-DETR {size}")
    try:
        return SIZES[size](pretrain_weights=str(checkpoint), device="cpu")
    except (RuntimeError, KeyError) as error:
        raise ValueError(
            f"{checkpoint}: expected a checkpoint of RF-DETR {size}: {error}"
        ) from error


def labels(model: RFDETR, *, given: str | None = None) -> list[str]:
    """Return the label of each logit column but the last.

    Args:
        model: A loaded model.
        given: Comma list that overrides the names in the checkpoint.

    Raises:
        ValueError: There are not as many names as classes.
    """
    classes = int(model.model_config.num_classes)
    names = given.split(",") if given else [str(name) for name in model.class_names]
    if len(names) != classes:
        raise ValueError(f"labels: expected {classes} names, got {len(names)}: {names}")
    return names
