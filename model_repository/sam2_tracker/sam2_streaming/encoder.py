"""From pictures to image features, whatever is looked for in them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn
from typing_extensions import override

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)

Images = NDArray[np.uint8] | Tensor
"""RGB pictures uint8 `(m, size, size, 3)`; a tensor lies on the engine's device."""


@dataclass(frozen=True, slots=True)
class Features:
    """Feature maps of `m` pictures, `(m, channels, h, w)`.

    Attributes:
        fine: The finer levels, finest first.
        coarse: The level at which memory attention works.
        positions: Of the coarse level as tokens, `(1, h * w, channels)`.
    """

    fine: list[Tensor]
    coarse: Tensor
    positions: Tensor

    @classmethod
    def of(cls, parts: Sequence["Features"]) -> "Features":
        """Put the feature maps of several batches of pictures after each other."""
        return cls(
            [torch.cat(level) for level in zip(*(part.fine for part in parts), strict=True)],
            torch.cat([part.coarse for part in parts]),
            parts[0].positions,
        )

    def first(self, count: int) -> "Features":
        """Return those of the first pictures."""
        return Features([level[:count] for level in self.fine], self.coarse[:count], self.positions)


class PictureEncoder:
    """The image encoder behind its normalisation.

    Args:
        network: Its position encoding is changed to one that is not repeated for every picture.
    """

    def __init__(self, network: SAM2Base) -> None:
        self._network = network
        neck = network.image_encoder.neck
        neck.position_encoding = _PositionsOfOne(neck.position_encoding)
        mean, std = torch.tensor([_MEAN, _STD], device=network.device).view(2, 3, 1, 1)
        self._scale, self._shift = 1 / (255 * std), -mean / std

    def encode(self, images: Images, batch: Sequence[int]) -> Features:
        """Encode some of the images, in the order of `batch`."""
        given = images if isinstance(images, Tensor) else torch.from_numpy(images)
        pixels = given.to(self._network.device)[batch].permute(0, 3, 1, 2)
        # In place keeps the channels last in memory, as the encoder works.
        normalised = pixels.float().mul_(self._scale).add_(self._shift)
        encoded = self._network.forward_image(normalised)
        *fine, coarse = encoded["backbone_fpn"]
        positions = encoded["vision_pos_enc"][-1].flatten(2).transpose(1, 2)
        return Features(fine, coarse, positions)


class _PositionsOfOne(nn.Module):
    """Positions of one picture of a batch, which are those of all."""

    def __init__(self, encoding: nn.Module) -> None:
        super().__init__()
        self._encoding = encoding

    @override
    def forward(self, maps: Tensor) -> Tensor:
        positions: Tensor = self._encoding(maps[:1])
        return positions
