"""Prompts of frame 0, drawn from true masks: a noisy box, the mask itself, or one click."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from training.run.config import Frozen

# Source: sam2 1.1.0, `PromptEncoder`: labels of points.
_CLICK = (1,)
_BOX_CORNERS = (2, 3)


class Prompts(Frozen):
    """How often each kind of prompt is drawn, relative to the others.

    SAM 2 was trained with mask 0.5, box 0.25 and click 0.25.
    """

    box: float = Field(default=1.0, ge=0)
    mask: float = Field(default=0.0, ge=0)
    click: float = Field(default=0.0, ge=0)
    box_noise: float = Field(default=0.06, ge=0)
    """Standard deviation of a box's edges, as a share of its sides."""

    @model_validator(mode="after")
    def _has_a_kind(self) -> Self:
        if not self.box + self.mask + self.click:
            raise ValueError("expected box, mask or click above 0")
        return self


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as `SAM2Base` takes it; one of the two is None.

    Attributes:
        points: `point_coords` float32 `(B, P, 2)` in window pixels, `point_labels` int32 `(B, P)`.
        mask: 0/1 float32 `(B, 1, size, size)`.
    """

    points: dict[str, Tensor] | None
    mask: Tensor | None

    @classmethod
    def at(cls, points: Tensor, labels: Tensor) -> "Prompt":
        """Return a prompt of clicks or box corners."""
        return cls({"point_coords": points, "point_labels": labels}, None)

    @classmethod
    def of(cls, batch: Mapping[str, Tensor]) -> "Prompt":
        """Return the prompt that `draw` put into a batch, or the first frame's mask."""
        if "points" in batch:
            return cls.at(batch["points"], batch["labels"])
        return cls(None, batch["masks"][0, :, None])


def draw(
    masks: NDArray[np.float32], prompts: Prompts, rng: np.random.Generator
) -> dict[str, Tensor]:
    """Draw prompts of one kind for a batch.

    Args:
        masks: Of frame 0, 0/1 float32 `(B, size, size)`, none empty.
        prompts: Shares of the kinds.
        rng: Source of all randomness.

    Returns:
        `points` float32 `(B, P, 2)` and `labels` int32 `(B, P)`; nothing for a mask.
    """
    shares = np.array([prompts.box, prompts.mask, prompts.click])
    match rng.choice(["box", "mask", "click"], p=shares / shares.sum()):
        case "box":
            return _labelled(noisy_boxes(masks, prompts.box_noise, rng), _BOX_CORNERS)
        case "click":
            return _labelled(_clicks(masks, rng), _CLICK)
        case _:
            return {}


def noisy_boxes(
    masks: NDArray[np.float32], noise: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return corners float32 `(B, 2, 2)` of the masks' boxes, off by `noise` box sizes."""
    boxes = np.empty((len(masks), 2, 2), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = np.nonzero(mask)
        box[:] = (columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)
    sizes = boxes[:, 1:] - boxes[:, :1]
    return (boxes + rng.normal(0, 1, boxes.shape) * noise * sizes).astype(np.float32)


def _clicks(masks: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a random pixel's centre of every mask, float32 `(B, 1, 2)`."""
    pixels = [rng.choice(np.argwhere(mask)) for mask in masks]
    return np.array([[(x + 0.5, y + 0.5)] for y, x in pixels], np.float32)


def _labelled(points: NDArray[np.float32], labels: tuple[int, ...]) -> dict[str, Tensor]:
    repeated = torch.tensor([labels] * len(points), dtype=torch.int32)
    return {"points": torch.from_numpy(points), "labels": repeated}
