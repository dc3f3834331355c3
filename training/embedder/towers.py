"""SigLIP's two towers with their tokenizer: from nothing, from a checkpoint, and back to files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from transformers import (
    AutoTokenizer,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipTextModel,
    SiglipVisionModel,
)
from transformers.utils import logging

from training.embedder.texts import MAX_TOKENS, tokenizer
from training.errors import InputError
from training.run.config import Frozen

_START_SCALE, _START_BIAS = 10.0, -5.0  # milder than SigLIP's -10: a text has many true crops here


class Sizes(Frozen):
    """Sizes of two towers that start from nothing."""

    image_size: int = Field(default=64, gt=0)
    patch_size: int = Field(default=8, gt=0)
    width: int = Field(default=128, gt=0)
    heads: int = Field(default=4, gt=0)
    vision_layers: int = Field(default=4, gt=0)
    text_layers: int = Field(default=2, gt=0)

    @model_validator(mode="after")
    def _fit(self) -> Self:
        for whole, part in (("width", "heads"), ("image_size", "patch_size")):
            if getattr(self, whole) % getattr(self, part):
                raise ValueError(f"expected {whole} to be a multiple of {part}")
        return self


@dataclass(frozen=True, slots=True)
class Towers:
    """Both towers, ready for use.

    Attributes:
        vision: A `SiglipVisionModel`.
        text: A `SiglipTextModel`.
        tokenizer: Of the texts.
    """

    vision: Any
    text: Any
    tokenizer: Any

    @classmethod
    def of(cls, model: Any, words: Any) -> "Towers":
        """Return the towers of a `SiglipModel` and its tokenizer."""
        return cls(model.vision_model, model.text_model, words)

    @property
    def image_size(self) -> int:
        """Side of the crops in pixels."""
        return int(self.vision.config.image_size)

    @property
    def device(self) -> torch.device:
        """Where the towers are."""
        return torch.device(self.vision.device)

    def tokens(self, texts: list[str]) -> Tensor:
        """Return int64 `(n, T)`: lower case, padded or cut to the model's full length `T`.

        Source: transformers' SigLIP documentation.
        """
        encoded = self.tokenizer(
            [text.lower() for text in texts],
            padding="max_length",
            max_length=self.text.config.max_position_embeddings,
            truncation=True,
            return_tensors="pt",
        )
        return torch.as_tensor(encoded["input_ids"])


def normalise(pixels: Tensor) -> Tensor:
    """Map RGB uint8 `(n, height, width, 3)` to float32 `(n, 3, height, width)` in `[-1, 1]`.

    Source: transformers, SiglipImageProcessor, mean and standard deviation .5.
    """
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def start(init: Path | None, sizes: Sizes) -> tuple[SiglipModel, Any]:
    """Return the model to train and its tokenizer.

    Args:
        init: Checkpoint of a fixed-size SigLIP or SigLIP 2 with its tokenizer, in the layout of
            its hub; None starts from nothing.
        sizes: Of a model that starts from nothing.

    Raises:
        InputError: The checkpoint is missing or lacks weights.
    """
    if init is not None:
        return _loaded(SiglipModel, init), _tokenizer(init)
    words = tokenizer()
    model = _from_nothing(sizes, len(words))
    with torch.no_grad():
        model.logit_scale.fill_(np.log(_START_SCALE))
        model.logit_bias.fill_(_START_BIAS)
    return model, words


def load(weights: Path) -> Towers:
    """Return the towers of a folder of `save`, or of a checkpoint in the layout of its hub.

    Raises:
        InputError: A tower is missing or lacks weights.
    """
    split = (weights / "vision").is_dir()
    vision, text = (weights / "vision", weights / "text") if split else (weights, weights)
    towers = Towers(
        _loaded(SiglipVisionModel, vision), _loaded(SiglipTextModel, text), _tokenizer(text)
    )
    towers.vision.eval()
    towers.text.eval()
    return towers


def save(towers: Towers, out: Path) -> Path:
    """Write `vision/` and `text/` as fp16, each with what it needs beside it; return `out`."""
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    side = {"height": towers.image_size, "width": towers.image_size}
    towers.vision.half().save_pretrained(out / "vision")
    SiglipImageProcessor(size=side).save_pretrained(out / "vision")
    towers.text.half().save_pretrained(out / "text")
    towers.tokenizer.save_pretrained(out / "text")
    towers.vision.float()
    towers.text.float()
    return out


def _from_nothing(sizes: Sizes, vocabulary: int) -> SiglipModel:
    shape = {
        "hidden_size": sizes.width,
        "intermediate_size": 4 * sizes.width,
        "num_attention_heads": sizes.heads,
    }
    vision = {
        "num_hidden_layers": sizes.vision_layers,
        "image_size": sizes.image_size,
        "patch_size": sizes.patch_size,
    }
    text = {
        "num_hidden_layers": sizes.text_layers,
        "vocab_size": vocabulary,
        "max_position_embeddings": MAX_TOKENS,
        "projection_size": sizes.width,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    return SiglipModel(SiglipConfig(vision_config=shape | vision, text_config=shape | text))


def _loaded(kind: Any, folder: Path) -> Any:
    """Load a checkpoint; transformers itself would only warn where weights are missing."""
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model, report = kind.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{folder}: expected a SigLIP checkpoint: {error}") from error
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise InputError(f"{folder}: expected {kind.__name__} weights, missing are {missing}, …")
    return model


def _tokenizer(folder: Path) -> Any:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: expected a tokenizer beside the weights: {error}") from error
