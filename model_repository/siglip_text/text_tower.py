"""The text tower of SigLIP: descriptions in, unit vectors out, in the space of the crops.

Published SigLIP and fixed-size SigLIP 2 checkpoints and our small one (`training/embedder/`)
have the same layout and load the same way; their tokenizer lies beside the weights.
"""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerFast,
    SiglipTextConfig,
    SiglipTextModel,
)

RANDOM = "random"
"""In place of a path: untrained weights, for load tests only."""

_TOKENIZER_FILES = ("tokenizer.json", "spiece.model")


class TextTower(nn.Module):
    """A `SiglipTextModel` with its tokenizer before and L2 normalisation behind it."""

    def __init__(self, model: SiglipTextModel, tokenizer: Any) -> None:
        super().__init__()
        self._model = model
        self._tokenizer = tokenizer

    def embed(self, texts: list[str]) -> Tensor:
        """Embed texts of any length; what exceeds the model's tokens is cut off.

        Returns:
            float32 `(len(texts), D)`, rows of length 1.
        """
        # Source: transformers' SigLIP documentation: lower case, padded to the full length, and
        # no attention mask, as in training.
        tokens = self._tokenizer(
            [text.lower() for text in texts],
            padding="max_length",
            max_length=self._model.config.max_position_embeddings,
            truncation=True,
            return_tensors="pt",
        )
        pooled = self._model(tokens["input_ids"].to(self._model.device)).pooler_output
        return functional.normalize(pooled.float(), dim=1)


def load(weights: str, directory: Path, width: int) -> TextTower:
    """Load a tower and hold it against the embedding's size in the model's config.

    Args:
        weights: `RANDOM`, or a folder in the layout of `save_pretrained`, absolute or relative to
            `directory`.
        directory: The Triton model's folder.
        width: D, length of the embeddings in the config.

    Raises:
        FileNotFoundError: The folder or a file of it is missing; says what belongs there.
        ValueError: Weights are missing from the file, or D differs from the config.
    """
    if weights == RANDOM:
        return _random(width)
    folder = directory / weights
    _check_files(folder, directory / "weights" / "README.md")
    model = _checkpoint(folder)
    found = model.config.projection_size
    if found != width:
        raise ValueError(
            f"{folder}: embedding length D of the weights is {found}, "
            f"the config's dims of embedding say {width}"
        )
    return TextTower(model, AutoTokenizer.from_pretrained(folder, local_files_only=True)).eval()


def _check_files(folder: Path, card: Path) -> None:
    missing = [
        name for name in ("config.json", "model.safetensors") if not (folder / name).is_file()
    ]
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        missing.append(" or ".join(_TOKENIZER_FILES))
    if missing:
        raise FileNotFoundError(
            f"{folder}: expected a SigLIP checkpoint such as google/siglip-base-patch16-224, "
            f"missing are {', '.join(missing)}; see {card}"
        )


def _checkpoint(folder: Path) -> SiglipTextModel:
    """Load a checkpoint; transformers itself would only warn where weights are missing."""
    loaded: Any = SiglipTextModel.from_pretrained(
        folder, local_files_only=True, output_loading_info=True, dtype=torch.float32
    )
    model, report = loaded
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise ValueError(f"{folder}: expected SiglipTextModel weights, missing are {missing}, …")
    return model  # type: ignore[no-any-return]


def _random(width: int) -> TextTower:
    """Build two untrained layers of the given width over single bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"[PAD]": 0} | {byte: i + 1 for i, byte in enumerate(alphabet)}
    inner = Tokenizer(models.BPE(vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    config = SiglipTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=2,
        num_attention_heads=max(width // 64, 1),
        projection_size=width,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=inner, pad_token="[PAD]"
    )
    return TextTower(SiglipTextModel(config), tokenizer).eval()
