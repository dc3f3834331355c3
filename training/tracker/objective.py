"""How the tracker is trained: whole tracklets through memory, and the loss over them.

Source of the losses: SAM 2 (arXiv 2408.00714, appendix D.2) and the configs of its training code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor
from torch.nn import functional

from training.run.config import Frozen
from training.tracker.prompts import Prompt
from training.tracker.tracklets import MIN_MASK_PX


class LossWeights(Frozen):
    """Weights of the parts of the loss; the defaults are those of SAM 2."""

    focal: float = Field(default=20.0, ge=0)
    """Of the focal loss of mask pixels."""
    dice: float = Field(default=1.0, ge=0)
    """Of the dice loss of masks."""
    iou: float = Field(default=1.0, ge=0)
    """Of the error of the predicted IoU."""
    presence: float = Field(default=1.0, ge=0)
    """Of the cross-entropy of being in sight."""
    focal_gamma: float = Field(default=2.0, ge=0)
    """How much less a pixel counts that is right already."""
    focal_alpha: float = Field(default=0.25, gt=0, lt=1)
    """Share of the pixels inside in the focal loss; 0.5 treats both sides alike."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the network says about one frame of `B` tracklets.

    Attributes:
        logits: Mask logits `(B, M, size, size)` of `M` candidates.
        iou: Predicted IoU of the candidates, `(B, M)`.
        presence: Object score logits `(B,)`; above 0 means in sight.
    """

    logits: Tensor
    iou: Tensor
    presence: Tensor

    @property
    def best_logits(self) -> Tensor:
        """The candidate that the network itself would choose, `(B, size, size)`."""
        rows = torch.arange(len(self.iou), device=self.iou.device)
        return self.logits[rows, self.iou.argmax(1)]


def track(network: SAM2Base, pictures: Tensor, prompt: Prompt, first_age: int = 1) -> list[Outputs]:
    """Run tracklets through upstream's own training path, keeping gradients through memory.

    Args:
        network: Compact or published.
        pictures: Normalised float32 `(T, B, 3, size, size)`.
        prompt: Of frame 0.
        first_age: Frame number given to frame 1, so that the prompt can look old to the network.

    Returns:
        One entry for each of the `T` frames.
    """
    frames, tracklets = pictures.shape[:2]
    features = network.forward_image(pictures.flatten(0, 1))
    _, all_vision, all_positions, sizes = network._prepare_backbone_features(features)
    memory: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    results = []
    for k in range(frames):
        now = slice(k * tracklets, (k + 1) * tracklets)
        vision, positions = ([level[:, now] for level in x] for x in (all_vision, all_positions))
        points, mask = (None, None) if k else (prompt.points, prompt.mask)
        number = k and first_age + k - 1
        current, heads, _, _ = network._track_step(
            number, k == 0, vision, positions, sizes, points, mask, memory, number + 99, False, None
        )
        _, candidates, iou, _, logits, current["obj_ptr"], presence = heads
        network._encode_memory_in_output(vision, sizes, points, True, logits, presence, current)
        memory["non_cond_frame_outputs" if k else "cond_frame_outputs"][number] = current
        results.append(Outputs(candidates.float(), iou.float(), presence[:, 0].float()))
    return results


def loss(outputs: Sequence[Outputs], masks: Tensor, weights: LossWeights) -> Tensor:
    """Focal and dice on the best candidate, L1 on each IoU, cross-entropy on presence.

    Masks and IoU count where the person is in sight.

    Args:
        outputs: Of `track`.
        masks: Truth 0/1 float32 `(T, B, size, size)`.
        weights: Of the parts.
    """
    present = is_present(masks).float()
    shown = torch.stack([_mask_loss(*one, weights) for one in zip(outputs, masks, strict=True)])
    said = torch.stack([one.presence for one in outputs])
    presence = functional.binary_cross_entropy_with_logits(said, present)
    return (shown * present).sum() / present.sum().clamp(min=1) + weights.presence * presence


def _mask_loss(outputs: Outputs, mask: Tensor, weights: LossWeights) -> Tensor:
    """Loss `(B,)` of one frame; `mask` is `(B, size, size)`."""
    truth = mask[:, None].expand_as(outputs.logits)
    logits = outputs.logits.clamp(-30, 30)  # an absent object's are -1024
    probability = logits.sigmoid()
    overlap, total = (probability * truth).sum((-1, -2)), (probability + truth).sum((-1, -2))
    dice = 1 - (2 * overlap + 1) / (total + 1)
    candidates = weights.focal * _focal(logits, truth, weights) + weights.dice * dice
    iou_error = (outputs.iou - mask_iou(outputs.logits.detach(), truth)).abs().mean(1)
    return candidates.min(1).values + weights.iou * iou_error


def _focal(logits: Tensor, truth: Tensor, weights: LossWeights) -> Tensor:
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    probability = logits.sigmoid()
    surprise = torch.where(truth > 0, 1 - probability, probability) ** weights.focal_gamma
    side = torch.where(truth > 0, weights.focal_alpha, 1 - weights.focal_alpha)
    return (side * cross_entropy * surprise).mean((-1, -2))


def is_present(masks: Tensor) -> Tensor:
    """Whether enough of the person is in sight; masks are over the last two dimensions."""
    return masks.sum((-1, -2)) >= MIN_MASK_PX


def mask_iou(logits: Tensor, masks: Tensor) -> Tensor:
    """IoU of thresholded logits with masks, over the last two dimensions."""
    predicted, true = logits > 0, masks > 0
    union = (predicted | true).sum((-1, -2)).clamp(min=1)
    return (predicted & true).sum((-1, -2)).float() / union
