"""The `parameters` of the model's Triton configuration."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from sam2.modeling.sam2_base import SAM2Base

from sam2_streaming.architecture import SIZE_STEP, CompactConfig, load, random_compact
from sam2_streaming.effort import Effort
from sam2_streaming.stream import Mode

T = TypeVar("T")

_MODES: dict[str, Mode] = {"window": "window", "frame": "frame"}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "auto": None}


@dataclass(frozen=True, slots=True)
class Parameters:
    """How a model instance was configured.

    Attributes:
        weights: Path relative to the model's directory, or `random` for a load test.
        image_size: Side of the pictures that the network sees, for published weights: 128, 256 or
            512 suit windows, 1024 whole frames; None for what the weights say.
        mode: `window` or `frame`.
        context: Side of a window in heights of its object.
        slots: Most live sequences of one instance.
        ttl_s: Seconds after which an idle sequence is dropped.
        effort: From `rest_frames` and `max_observed`, see `Effort`.
        min_memory_score: See `StreamingEngine`.
        dtype: Of matrix products: `float32`, `bfloat16`, or `auto` for bf16 on a CPU that
            multiplies it in hardware.
        threads: CPU threads of one instance.
    """

    weights: str
    image_size: int | None
    mode: Mode
    context: float
    slots: int
    ttl_s: float
    effort: Effort
    min_memory_score: float
    dtype: torch.dtype
    threads: int

    @classmethod
    def of(cls, config: dict[str, Any]) -> "Parameters":
        """Read a model configuration.

        Raises:
            KeyError: A parameter is missing.
            ValueError: A parameter has none of the values named above; names it.
        """
        texts = {key: value["string_value"] for key, value in config["parameters"].items()}
        size = _whole(texts, "image_size", SIZE_STEP, SIZE_STEP) if "image_size" in texts else None
        return cls(
            weights=texts["weights"],
            image_size=size,
            mode=_word(texts, "mode", _MODES),
            context=_number(texts, "context", least=1),
            slots=_whole(texts, "slots", least=1),
            ttl_s=_number(texts, "ttl_s", least=1),
            effort=Effort(
                _whole(texts, "rest_frames", least=1), _whole(texts, "max_observed", least=0)
            ),
            min_memory_score=_number(texts, "min_memory_score", least=0),
            dtype=_word(texts, "dtype", _DTYPES) or _dtype_of_this_cpu(),
            threads=_whole(texts, "threads", least=1),
        )

    def network(self, model_directory: Path) -> SAM2Base:
        """Build the network and load its weights."""
        if self.weights == "random":
            return random_compact(CompactConfig())
        return load(model_directory / self.weights, self.image_size)


def _number(texts: dict[str, str], key: str, least: float) -> float:
    try:
        number = float(texts[key])
    except ValueError:
        number = math.nan
    if not least <= number < math.inf:
        raise ValueError(f"parameter {key}: expected {least:g} or more, got {texts[key]}")
    return number


def _whole(texts: dict[str, str], key: str, least: int, step: int = 1) -> int:
    number = _number(texts, key, least)
    if number % step:
        raise ValueError(f"parameter {key}: expected a multiple of {step}, got {texts[key]}")
    return int(number)


def _word(texts: dict[str, str], key: str, meanings: dict[str, T]) -> T:
    if texts[key] not in meanings:
        raise ValueError(f"parameter {key}: expected one of {[*meanings]}, got {texts[key]}")
    return meanings[texts[key]]


def _dtype_of_this_cpu() -> torch.dtype:
    has_bf16 = "amx_bf16" in Path("/proc/cpuinfo").read_text()
    return torch.bfloat16 if has_bf16 else torch.float32
