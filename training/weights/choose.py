"""Make a model of the repository serve other weights, by rewriting its config.

The config is the one place that says what is served, on a laptop and in a cluster; so the choice
is written there, together with the tensor sizes and labels that the weights bring along. Comments
and all else stay as they are.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.local.repository import config_file, read_config
from orchestrator.errors import ClusterError
from training.errors import InputError
from training.weights.registry import Entry, differences
from training.whole_file import whole, write_whole

DEFAULT_THRESHOLDS = {"ball": "0.3"}
"""Least confidence of a label that the config had none for; 0.5 for those not named here."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What a config must say for some weights.

    Attributes:
        dims: Tensor name to its dims without the batch.
        parameters: Config parameters; those that a config does not have are left out.
    """

    dims: Mapping[str, Sequence[int]] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)


def use_entry(entry: Entry, folder: Path, repository: Path, variant: str) -> list[Path]:
    """Make the models of an entry serve it; returns the rewritten configs.

    Published files are linked into the model's folder, or copied where links end.

    Raises:
        InputError: The entry is a starting point of training, its files are not the registered
            ones, or a config names no weights.
    """
    if entry.role == "start":
        raise InputError(
            f"weights {entry.name!r}: no model serves them as they are; fine-tune from them, "
            "export, then `weights use MODEL=FILE`"
        )
    wrong = list(differences(entry, folder))
    if wrong:
        raise InputError("\n".join([f"weights {entry.name!r}: not the registered ones:", *wrong]))
    placed = {model: _place(entry, folder, repository / model) for model in entry.models}
    return [use_path(repository, model, path, variant) for model, path in placed.items()]


def use_path(repository: Path, model: str, weights: Path, variant: str) -> Path:
    """Make a model serve the weights at a path; returns the rewritten config.

    Args:
        repository: The model repository.
        model: Name of a model in it.
        weights: An ONNX file, a SAM2 checkpoint or a SigLIP folder.
        variant: `cpu`, or `default` for `config.pbtxt`.

    Raises:
        InputError: Model, config or weights are missing, or the config names no weights.
    """
    try:
        file = config_file(repository, model, variant)
        current = read_config(file)
    except ClusterError as error:
        raise InputError(str(error)) from error
    if "weights" not in current.parameters:
        raise InputError(
            f"{file}: has no parameter `weights`: it serves a TensorRT engine, see `engine build`"
        )
    if not weights.exists():
        raise InputError(f"{weights}: expected the weights of {model}, found nothing")
    fit = _fit(weights, model)
    inside = weights.resolve().is_relative_to((repository / model).resolve())
    named = weights.resolve().relative_to((repository / model).resolve()) if inside else weights
    parameters = {"weights": str(named if inside else weights.resolve()), **fit.parameters}
    write_whole(file, _rewritten(file.read_text(), fit.dims, parameters).encode())
    return file


def _place(entry: Entry, folder: Path, model: Path) -> Path:
    """Return the entry's file or folder below a model's folder, linked there if need be."""
    if entry.is_ours:
        own = [file.path for file in entry.files if file.path.startswith(f"{model.name}/")]
        first = model.parent / own[0]
        return first if len(own) == 1 else first.parent
    target = model / "weights"
    if len(entry.files) > 1:
        target = target / entry.name
    for file in entry.files:
        _link(folder / file.path, target / file.path)
    return target / entry.files[0].path if len(entry.files) == 1 else target


def _link(origin: Path, path: Path) -> None:
    with whole(path) as partial:
        partial.unlink(missing_ok=True)  # of a command that was killed
        try:
            os.link(origin, partial)
        except OSError:  # another file system
            shutil.copyfile(origin, partial)


def _fit(weights: Path, model: str) -> Fit:
    if weights.suffix == ".onnx":
        return _onnx_fit(weights)
    if (weights / "config.json").is_file():
        return _siglip_fit(weights, model)
    if weights.suffix == ".safetensors":
        return _compact_sam2_fit(weights)
    return Fit()


def _onnx_fit(weights: Path) -> Fit:
    from training.onnx_file import open_onnx

    session = open_onnx(weights)
    tensors = (*session.get_inputs(), *session.get_outputs())
    labels = session.get_modelmeta().custom_metadata_map.get("labels")
    return Fit(
        {tensor.name: tensor.shape[1:] for tensor in tensors}, {"labels": labels} if labels else {}
    )


def _siglip_fit(folder: Path, model: str) -> Fit:
    from transformers import SiglipTextConfig, SiglipVisionConfig

    if model == "siglip_text":
        text: Any = SiglipTextConfig.from_pretrained(folder)
        return Fit({"embedding": [text.projection_size]})
    vision: Any = SiglipVisionConfig.from_pretrained(folder)
    side = vision.image_size
    return Fit({"crops": [side, side, 3], "embedding": [vision.hidden_size]})


def _compact_sam2_fit(weights: Path) -> Fit:
    from safetensors import safe_open

    with safe_open(weights, framework="np") as file:
        texts = (file.metadata() or {}).values()
    sizes = [json.loads(text)["image_size"] for text in texts if "image_size" in text]
    return Fit(parameters={"image_size": str(sizes[0])} if sizes else {})


def _rewritten(text: str, dims: Mapping[str, Sequence[int]], parameters: Mapping[str, str]) -> str:
    for name, sizes in dims.items():
        # A tensor's own entry has `name:`, its warm-up data `key:`.
        pattern = rf'((?:name|key): "{re.escape(name)}"[^\]]*?dims: \[)[^\]]*\]'
        text = re.sub(pattern, rf"\g<1> {', '.join(map(str, sizes))} ]", text)
    for key, value in _with_thresholds(text, parameters).items():
        pattern = _parameter(key)
        text = re.sub(pattern, lambda found, v=value: f'{found[1]}"{v}"', text)  # type: ignore[misc]
    return text


def _with_thresholds(text: str, parameters: Mapping[str, str]) -> dict[str, str]:
    """Add thresholds where the labels change, since there must be one for each."""
    before = re.search(_parameter("labels"), text)
    labels = parameters.get("labels")
    if before is None or labels is None or before[2] == labels:
        return dict(parameters)
    chosen = [DEFAULT_THRESHOLDS.get(label, "0.5") for label in labels.split(",")]
    return {**parameters, "thresholds": ",".join(chosen)}


def _parameter(key: str) -> str:
    return rf'(parameters \{{ key: "{key}" value \{{ string_value: )"([^"]*)"'
