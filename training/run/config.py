"""Configs of fine-tuning: a TOML file plus `key=value` assignments, checked key by key."""

import math
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.errors import InputError


class Frozen(BaseModel):
    """A config that cannot change and refuses keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Split(Frozen):
    """Names of clips; a clip is never divided, since its frames resemble each other."""

    train: tuple[str, ...] = Field(min_length=1)
    """Clips that are learnt."""
    held_out: tuple[str, ...] = ()
    """Clips that are only scored."""

    @model_validator(mode="after")
    def _scores_no_learnt_clip(self) -> Self:
        for key in set(type(self).model_fields) - {"train"}:
            both = set(self.train) & set(getattr(self, key))
            if both:
                raise ValueError(f"expected {key} without clips of train, got {sorted(both)}")
        return self


class Stage(Frozen):
    """A stretch of training with one kind of data and one fall of the learning rate."""

    name: str
    """For the log."""
    steps: int = Field(gt=0)
    """Updates of the weights."""
    learning_rate: float = Field(gt=0)
    """Highest learning rate, reached after the warm-up."""
    final_learning_rate: float = Field(default=0.0, ge=0)
    """Learning rate at the stage's end, reached on a cosine."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear rise at the start."""
    restart: bool = False
    """Start as a new run would: from the averaged weights, with a fresh optimizer."""

    def rate(self, step: int) -> float:
        """Return the learning rate at a step of this stage, `0 <= step < steps`."""
        fall = 0.5 + 0.5 * math.cos(math.pi * step / self.steps)
        rate = self.final_learning_rate + (self.learning_rate - self.final_learning_rate) * fall
        return rate * min(1.0, (step + 1) / max(self.warmup_steps, 1))


Share = Annotated[float, Field(ge=0, lt=1)]
"""What is kept of a moving mean at every step."""


class RunConfig(Frozen):
    """What every run of our own loop is told; each model adds its own keys and stages."""

    clips: Split
    seed: int = Field(default=0, ge=0)
    """Of the first weights, and with the step's number of all that is drawn for the step."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes an NVIDIA GPU where there is one."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Of matrix products; weights and losses are always fp32."""
    workers: int = Field(default=0, ge=0)
    """Processes that draw batches ahead; 0 draws in the training process."""
    checkpoint_seconds: float = Field(default=120.0, gt=0)
    """Most time between two checkpoints, in seconds."""
    evaluate_steps: int = Field(default=0, ge=0)
    """Steps between two scores on held-out clips; 0 scores at the end only."""
    weight_decay: float = Field(default=0.01, ge=0)
    betas: tuple[Share, Share] = (0.9, 0.999)
    """AdamW's memory of the gradient and of its square."""
    gradient_clip: float | None = Field(default=None, gt=0)
    """Largest norm of the gradient; absent: not limited."""
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    """Memory of the averaged weights, which are the result; 0 takes the last weights."""


EXECUTION_KEYS = frozenset({"device", "workers", "checkpoint_seconds"})
"""Keys that say where and how a run goes on, not what comes out."""

Config = TypeVar("Config", bound=BaseModel)


def load(kind: type[Config], path: Path, assignments: Sequence[str] = ()) -> Config:
    """Read a config.

    Args:
        kind: Its model.
        path: TOML file.
        assignments: `key=value` each, on top of the file. A key is dotted (`stages.0.steps`), a
            value is TOML, or else a plain string.

    Raises:
        InputError: The file or an assignment does not fit; names it, the key and what is expected.
    """
    try:
        document: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected TOML: {error}") from error
    for assignment in assignments:
        _assign(document, assignment)
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        origin = f"{path} with {' '.join(assignments)}" if assignments else str(path)
        faults = [_fault(kind, dict(entry)) for entry in error.errors(include_url=False)]
        raise InputError("\n".join(f"{origin}: {fault}" for fault in faults)) from error


def _assign(document: Any, assignment: str) -> None:
    key, separator, text = assignment.partition("=")
    if not (key and separator):
        raise InputError(f"--set {assignment}: expected key=value, such as stages.0.steps=100")
    *parents, last = key.split(".")
    try:
        for parent in parents:  # a table that the file leaves to its defaults begins here
            is_left_out = isinstance(document, dict) and parent not in document
            document = document.setdefault(parent, {}) if is_left_out else _within(document, parent)
        document[int(last) if isinstance(document, list) else last] = _value(text)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"--set {assignment}: expected a key of the config, not {key}") from error


def _within(container: Any, key: str) -> Any:
    return container[int(key) if isinstance(container, list) else key]


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _fault(kind: type[BaseModel], entry: dict[str, Any]) -> str:
    """Put one of pydantic's errors into words: key, expectation, what was found."""
    key = ".".join(str(part) for part in entry["loc"])
    if entry["type"] == "missing":
        return f"{key}: expected this key"
    if entry["type"] == "extra_forbidden":
        known = ", ".join(_known_keys(kind, entry["loc"][:-1]))
        return f"{key}: expected one of the keys {known}"
    return f"{key}: {entry['msg']}, found {entry['input']!r}"


def _known_keys(kind: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        if isinstance(part, str):
            annotation = kind.model_fields[part].annotation
            kind = next(one for one in (annotation, *get_args(annotation)) if _is_model(one))
    return list(kind.model_fields)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
