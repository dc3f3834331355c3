"""The jersey network: back number, role and shirt colour of one person's crop.

The backbone is torchvision's own `ResNet`; official state dicts of ResNet-18, -34 and -50 load into
it.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from typing_extensions import override

from orchestrator.contracts import RESNET_JERSEY

HEADS = {spec.name: int(spec.dims[0]) for spec in RESNET_JERSEY.outputs}
"""Columns of the logits by name."""
BACKBONES: dict[str, tuple[type[BasicBlock | Bottleneck], list[int]]] = {
    "resnet10": (BasicBlock, [1, 1, 1, 1]),
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
}

# Source: torchvision 0.27, transforms of the ImageNet weights.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class JerseyNet(nn.Module):
    """A torchvision ResNet with one linear head per output of the contract.

    Args:
        backbone: A key of `BACKBONES`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: str = "resnet10") -> None:
        super().__init__()
        if backbone not in BACKBONES:
            raise ValueError(f"backbone {backbone!r}: expected one of {', '.join(BACKBONES)}")
        self.backbone_name = backbone
        block, layers = BACKBONES[backbone]
        self.backbone = ResNet(block, layers, num_classes=1)
        # A number is some 15 pixels wide: the usual stem, of stride 4, would leave it 4 cells.
        self.backbone.conv1.stride = (1, 1)
        features = self.backbone.fc.in_features
        self.backbone.fc = nn.Identity()
        self.heads = nn.ModuleDict({name: nn.Linear(features, n) for name, n in HEADS.items()})
        self.register_buffer("mean", torch.tensor(_MEAN) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(_STD) * 255, persistent=False)

    def load_backbone(self, path: Path) -> None:
        """Load an official torchvision state dict, such as `resnet18-f37072fd.pth`.

        Its ImageNet classifier (`fc.*`) is left out; all else must match.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file belongs to another architecture; names it and the first mismatch.
        """
        weights = torch.load(path, map_location="cpu", weights_only=True)
        weights = {name: value for name, value in weights.items() if not name.startswith("fc.")}
        try:
            self.backbone.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f"{path}: expected torchvision's state dict of {error}") from error

    @override
    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        """Return the logits of all heads, in the order of the contract's outputs.

        Args:
            crops: RGB uint8 `(n, height, width, 3)`.

        Returns:
            One float32 `(n, width of the head)` for each of `HEADS`.
        """
        pixels = (crops.float() - self.mean) / self.std
        features = self.backbone(pixels.permute(0, 3, 1, 2)).float()
        return tuple(head(features) for head in self.heads.values())
