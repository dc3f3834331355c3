"""The vision tower of SigLIP: crops in, unit vectors out.

Published SigLIP and fixed-size SigLIP 2 checkpoints and our small one (`training/embedder/`)
have the same layout and load the same way.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import SiglipVisionConfig, SiglipVisionModel
from typing_extensions import override

RANDOM = "random"
"""In place of a path: untrained weights, for load tests only."""


class VisionTower(nn.Module):
    """A `SiglipVisionModel` with pixel normalisation before and L2 normalisation behind it."""

    def __init__(self, model: SiglipVisionModel) -> None:
        super().__init__()
        self._model = model

    @override
    def forward(self, crops: Tensor) -> Tensor:
        """Embed crops.

        Args:
            crops: RGB uint8 `(n, S, S, 3)`.

        Returns:
            float32 `(n, D)`, rows of length 1.
        """
        # Source: transformers, SiglipImageProcessor: mean and standard deviation .5.
        pixels = crops.permute(0, 3, 1, 2).float() / 127.5 - 1
        pooled = self._model(pixels.to(self._model.dtype)).pooler_output
        return functional.normalize(pooled.float(), dim=1)


def load(weights: str, directory: Path, image_size: int, width: int) -> VisionTower:
    """Load a tower and hold it against the tensor sizes of the model's config.

    Args:
        weights: `RANDOM`, or a folder in the layout of `save_pretrained`, absolute or relative to
            `directory`.
        directory: The Triton model's folder.
        image_size: S, side of the crops in the config.
        width: D, length of the embeddings in the config.

    Raises:
        FileNotFoundError: The folder or a file of it is missing; says what belongs there.
        ValueError: Weights are missing from the file, or S or D differ from the config.
    """
    if weights == RANDOM:
        return VisionTower(_random(image_size, width)).eval()
    folder = directory / weights
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder / name}: expected a SigLIP checkpoint such as "
                f"google/siglip-base-patch16-224; see {directory / 'weights' / 'README.md'}"
            )
    model = _checkpoint(folder)
    found = (model.config.image_size, model.config.hidden_size)
    if found != (image_size, width):
        raise ValueError(
            f"{folder}: image size S and embedding length D of the weights are {found}, "
            f"the config's dims of crops and embedding say {(image_size, width)}"
        )
    return VisionTower(model).eval()


def _checkpoint(folder: Path) -> SiglipVisionModel:
    """Load a checkpoint; transformers itself would only warn where weights are missing."""
    loaded: Any = SiglipVisionModel.from_pretrained(
        folder, local_files_only=True, output_loading_info=True, dtype=torch.float32
    )
    model, report = loaded
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise ValueError(f"{folder}: expected SiglipVisionModel weights, missing are {missing}, …")
    return model  # type: ignore[no-any-return]


def _random(image_size: int, width: int) -> SiglipVisionModel:
    """Build the base architecture's proportions at the given sizes, two layers deep."""
    config = SiglipVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=2,
        num_attention_heads=max(width // 64, 1),
        image_size=image_size,
        patch_size=16 if image_size % 16 == 0 else image_size,
    )
    return SiglipVisionModel(config)
