"""From image features to masks: SAM's prompt encoder and mask decoder over a batch of objects."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor
from torch.nn import functional

from sam2_streaming.prompts import Prompt

_PREVIOUS_LOGIT_LIMIT = 32.0
"""Of a mask that clicks correct. Source: sam2 1.1.0, `add_new_points_or_box`."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What the decoder sees of `n` objects.

    Attributes:
        coarse: The coarsest feature maps, as memory has changed them, `(n, channels, h, w)`.
        fine: Finer feature maps of the pictures, `(n, channels, ...)` each.
    """

    coarse: Tensor
    fine: list[Tensor]


@dataclass(frozen=True, slots=True)
class Decoded:
    """Decoder outputs of `n` objects, fp32, before anything is remembered.

    Attributes:
        logits: Mask logits `(n, size, size)`.
        small_logits: The same as the decoder gave them, `(n, 1, size / 4, size / 4)`.
        iou: Predicted IoU of the mask `(n,)`.
        presence: Logit that the object is in sight `(n,)`.
        pointers: Object pointers `(n, hidden)`.
    """

    logits: Tensor
    small_logits: Tensor
    iou: Tensor
    presence: Tensor
    pointers: Tensor

    @property
    def scores(self) -> Tensor:
        """fp32 `(n,)` in `[0, 1]`: probability of being in sight times predicted IoU."""
        return self.presence.sigmoid() * self.iou.clamp(0, 1)

    def write(self, rows: Sequence[int], part: "Decoded") -> None:
        """Put the first outputs of a part at these rows."""
        for field in self.__slots__:
            getattr(self, field)[rows] = getattr(part, field)[: len(rows)]


class Decoder:
    """Decodes batches of objects that were prompted in the same way.

    Source: sam2 1.1.0, `SAM2Base._track_step`, with a batch where upstream takes one object.
    """

    def __init__(self, network: SAM2Base) -> None:
        self._network = network
        self._device = network.device

    def blank(self, count: int) -> Decoded:
        """Room for the outputs of `count` objects."""
        size = self._network.image_size

        def room(*shape: int) -> Tensor:
            return torch.zeros(count, *shape, device=self._device)

        small = room(1, size // 4, size // 4)
        return Decoded(room(size, size), small, room(), room(), room(self._network.hidden_dim))

    def follow(self, sight: Sight) -> Decoded:
        """Decode tracked objects without a prompt."""
        return self._decode(sight, None, None, is_start=False)

    def start(self, sight: Sight, prompts: Sequence[Prompt]) -> Decoded:
        """Decode new objects from equally many points each."""
        return self._decode(sight, self._points(prompts), None, is_start=True)

    def correct(self, sight: Sight, prompts: Sequence[Prompt], followed: Tensor) -> Decoded:
        """Decode tracked objects from equally many points each and from `followed`.

        Args:
            sight: With memory.
            prompts: One per object.
            followed: `Decoded.small_logits` of the same objects without the prompts.
        """
        previous = followed.clamp(-_PREVIOUS_LOGIT_LIMIT, _PREVIOUS_LOGIT_LIMIT)
        return self._decode(sight, self._points(prompts), previous, is_start=False)

    def trace(self, sight: Sight, prompts: Sequence[Prompt]) -> Decoded:
        """Take the masks of prompts as they are; `sight` is without memory."""
        masks = np.stack([prompt.mask for prompt in prompts if prompt.mask is not None])
        given = torch.from_numpy(masks)[:, None].float().to(self._device)
        *_, iou, small, _, pointers, presence = self._network._use_mask_as_output(
            sight.coarse, sight.fine, given
        )
        # What the video predictor shows and remembers: not the mask but its small version.
        logits = functional.interpolate(small, given.shape[-2:], mode="bilinear")
        return Decoded(logits[:, 0], small, iou[:, 0], presence[:, 0], pointers.float())

    def _decode(
        self,
        sight: Sight,
        points: dict[str, Tensor] | None,
        previous: Tensor | None,
        is_start: bool,
    ) -> Decoded:
        _, _, iou, small, logits, pointers, presence = self._network._forward_sam_heads(
            backbone_features=sight.coarse,
            point_inputs=points,
            mask_inputs=previous,
            high_res_features=sight.fine,
            multimask_output=self._network._use_multimask(is_start, points),
        )
        best = iou.float().amax(1)
        return Decoded(logits[:, 0], small, best, presence[:, 0].float(), pointers.float())

    def _points(self, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
        points = torch.from_numpy(np.stack([prompt.points for prompt in prompts]))
        labels = torch.from_numpy(np.stack([prompt.labels for prompt in prompts]))
        return {
            "point_coords": points.to(self._device),
            "point_labels": labels.to(self._device),
        }
