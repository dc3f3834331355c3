"""How the tracker is trained: whole tracklets through memory, and the loss over them.

Source of the losses: SAM 2 (arXiv 2408.00714, appendix D.2), reweighted for a schedule of minutes.
"""

from dataclasses import dataclass
from typing import Any

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor
from torch.nn import functional

from training.tracker.tracklets import MIN_MASK_PX


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the network says about `T` frames of `B` tracklets.

    Attributes:
        logits: Mask logits `(T, B, size, size)`.
        iou: Predicted IoU `(T, B)`.
        presence: Object score logits `(T, B)`; above 0 means in sight.
    """

    logits: Tensor
    iou: Tensor
    presence: Tensor


def track(network: SAM2Base, pictures: Tensor, boxes: Tensor, first_age: int) -> Outputs:
    """Run tracklets through upstream's own training path, keeping gradients through memory.

    Args:
        network: A compact network.
        pictures: Normalised float32 `(T, B, 3, size, size)`.
        boxes: Prompts on frame 0, corners in window pixels, float32 `(B, 2, 2)`.
        first_age: Frame number given to frame 1, so that the prompt can look old to the network.
    """
    frames, tracklets = pictures.shape[:2]
    features = network.forward_image(pictures.flatten(0, 1))
    _, all_vision, all_positions, sizes = network._prepare_backbone_features(features)
    labels = torch.tensor([[2, 3]] * tracklets, dtype=torch.int32)
    memory: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    results = []
    for k in range(frames):
        now = slice(k * tracklets, (k + 1) * tracklets)
        vision, positions = ([level[:, now] for level in x] for x in (all_vision, all_positions))
        prompt = {"point_coords": boxes, "point_labels": labels} if k == 0 else None
        number = k and first_age + k - 1
        current, heads, _, _ = network._track_step(
            number, k == 0, vision, positions, sizes, prompt, None, memory, number + 99, False, None
        )
        _, _, iou, _, logits, current["obj_ptr"], presence = heads
        network._encode_memory_in_output(vision, sizes, prompt, True, logits, presence, current)
        memory["non_cond_frame_outputs" if k else "cond_frame_outputs"][number] = current
        results.append((logits[:, 0], iou[:, 0], presence[:, 0]))
    logits_, iou_, presence_ = (torch.stack(x).float() for x in zip(*results, strict=True))
    return Outputs(logits_, iou_, presence_)


def loss(outputs: Outputs, masks: Tensor) -> Tensor:
    """Focal and dice on visible masks, L1 on the predicted IoU, cross-entropy on presence.

    Args:
        outputs: Of `track`.
        masks: Truth 0/1 float32 `(T, B, size, size)`.
    """
    present = (masks.sum((-1, -2)) >= MIN_MASK_PX).float()
    logits = outputs.logits.clamp(-30, 30)
    probability = logits.sigmoid()
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    surprise = torch.where(masks > 0, 1 - probability, probability)
    focal = (cross_entropy * surprise).mean((-1, -2))
    overlap, total = (probability * masks).sum((-1, -2)), (probability + masks).sum((-1, -2))
    dice = 1 - (2 * overlap + 1) / (total + 1)
    iou_error = (outputs.iou - mask_iou(outputs.logits.detach(), masks)).abs()
    shown = ((10 * focal + dice + 0.3 * iou_error) * present).sum() / present.sum().clamp(min=1)
    return shown + functional.binary_cross_entropy_with_logits(outputs.presence, present)


def mask_iou(logits: Tensor, masks: Tensor) -> Tensor:
    """IoU of thresholded logits with masks, over the last two dimensions."""
    predicted, true = logits > 0, masks > 0
    union = (predicted | true).sum((-1, -2)).clamp(min=1)
    return (predicted & true).sum((-1, -2)).float() / union


def noisy_boxes(masks: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Corners `(B, 2, 2)` of the boxes of masks `(B, size, size)`, off by `noise` box sizes."""
    boxes = torch.empty(len(masks), 4)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = torch.nonzero(mask.any(1)).flatten(), torch.nonzero(mask.any(0)).flatten()
        box[:] = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    sizes = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    return (boxes + torch.randn(boxes.shape, generator=generator) * noise * sizes).view(-1, 2, 2)
