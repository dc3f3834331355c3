"""Make a model of the repository serve other weights, by rewriting its config.

The config is the one place that says what is served, on a laptop and in a cluster; so the choice
is written there, together with the tensor sizes and labels that the weights bring along. Comments
and all else stay as they are.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from deploy.local.repository import config_file, read_config
from orchestrator.errors import ClusterError
from training.errors import InputError
from training.weights.registry import Entry, differences
from training.whole_file import whole, write_whole

DEFAULT_THRESHOLDS = {"ball": "0.3"}
"""Least confidence of a label that the config had none for; 0.5 for those not named here."""

_OFFICIAL_SAM2_SIDE = "512"
"""Smallest pictures that a published SAM2 follows players in without fine-tuning."""


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
        weights: An ONNX file, a SAM2 checkpoint or a SigLIP folder, as the model takes.
        variant: `cpu`, or `default` for `config.pbtxt`.

    Raises:
        InputError: Model, config or weights are missing, the config names no weights, or the
            weights are not for this model; the config stays as it was.
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
    if model not in _FITS:
        raise InputError(f"{model}: expected one of {', '.join(_FITS)}: others bring no weights")
    fit = _FITS[model](weights, current)
    _check_tensors(fit, current, f"{weights}: expected the weights of {model}")
    named, home = weights.resolve(), (repository / model).resolve()
    named = named.relative_to(home) if named.is_relative_to(home) else named
    parameters = {"weights": str(named), **fit.parameters}
    text = _rewritten(file.read_text(), fit.dims, parameters)
    _check_rewritten(text, type(current)(), fit.dims, parameters, file)
    write_whole(file, text.encode())
    return file


def _check_tensors(fit: Fit, config: Any, expected: str) -> None:
    tensors = {tensor.name for tensor in (*config.input, *config.output)}
    if fit.dims and fit.dims.keys() != tensors:
        raise InputError(f"{expected}, tensors {sorted(tensors)}, found {sorted(fit.dims)}")


def _check_rewritten(
    text: str,
    config: Any,
    dims: Mapping[str, Sequence[int]],
    parameters: Mapping[str, str],
    file: Path,
) -> None:
    """Read a text into an empty config; refuse it if that does not say what it should."""
    try:
        text_format.Parse(text, config)
    except text_format.ParseError as error:
        raise InputError(f"{file}: the weights do not fit into it: {error}") from error
    for tensor in (*config.input, *config.output):
        if tensor.name in dims and list(tensor.dims) != list(dims[tensor.name]):
            raise InputError(f"{file}: tensor {tensor.name}: expected `name` before `dims`")
    for key, value in parameters.items():
        if key in config.parameters and config.parameters[key].string_value != value:
            raise InputError(
                f"{file}: parameter {key}: expected the form "
                f'`parameters {{ key: "{key}" value {{ string_value: "..." }} }}`'
            )


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
            os.link(origin.resolve(), partial)  # a link itself may not mean the same elsewhere
        except OSError:  # another file system
            shutil.copyfile(origin, partial)


def _onnx_fit(weights: Path, _current: Any) -> Fit:
    from training.onnx_file import open_onnx

    session = open_onnx(weights)
    tensors = (*session.get_inputs(), *session.get_outputs())
    labels = session.get_modelmeta().custom_metadata_map.get("labels")
    return Fit(
        {tensor.name: tensor.shape[1:] for tensor in tensors}, {"labels": labels} if labels else {}
    )


def _siglip_vision_fit(folder: Path, _current: Any) -> Fit:
    from transformers import SiglipVisionConfig

    vision: Any = SiglipVisionConfig.from_pretrained(_siglip_folder(folder))
    side = vision.image_size
    return Fit({"crops": [side, side, 3], "embedding": [vision.hidden_size]})


def _siglip_text_fit(folder: Path, _current: Any) -> Fit:
    from transformers import SiglipTextConfig

    text: Any = SiglipTextConfig.from_pretrained(_siglip_folder(folder))
    return Fit({"text": [1], "embedding": [text.projection_size]})


def _siglip_folder(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: expected a SigLIP folder, with config.json")
    return folder


def _sam2_fit(weights: Path, current: Any) -> Fit:
    """Return the side of the pictures: a compact network has its own, a published one any."""
    if weights.suffix == ".safetensors":
        return _compact_sam2_fit(weights)
    if not weights.is_dir() and weights.suffix != ".pt":
        raise InputError(f"{weights}: expected a SAM2 checkpoint, .pt or .safetensors")
    was_compact = current.parameters["weights"].string_value.endswith(".safetensors")
    return Fit(parameters={"image_size": _OFFICIAL_SAM2_SIDE} if was_compact else {})


def _compact_sam2_fit(weights: Path) -> Fit:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="np") as file:
            texts = (file.metadata() or {}).values()
    except SafetensorError as error:
        raise InputError(f"{weights}: expected complete safetensors: {error}") from error
    try:
        sizes = [json.loads(text)["image_size"] for text in texts if "image_size" in text]
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{weights}: expected a network's sizes in its metadata: {error!r}"
        ) from error
    return Fit(parameters={"image_size": str(sizes[0])} if sizes else {})


_FITS: Mapping[str, Callable[[Path, Any], Fit]] = {
    "rfdetr_detector": _onnx_fit,
    "resnet_jersey": _onnx_fit,
    "sam2_tracker": _sam2_fit,
    "siglip_embedder": _siglip_vision_fit,
    "siglip_text": _siglip_text_fit,
}
"""By model, what its weights, given the present config, make a config say."""


def _rewritten(text: str, dims: Mapping[str, Sequence[int]], parameters: Mapping[str, str]) -> str:
    for name, sizes in dims.items():
        # A tensor's own entry has `name:`, its warm-up data `key:`.
        pattern = rf'((?:name|key): "{re.escape(name)}"[^\]]*?dims: \[)[^\]]*\]'
        text = re.sub(pattern, rf"\g<1> {', '.join(map(str, sizes))} ]", text)
    for key, value in _with_thresholds(text, parameters).items():
        pattern = _parameter(key)
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        text = re.sub(pattern, lambda found, v=quoted: f'{found[1]}"{v}"', text)  # type: ignore[misc]
    return text


def _with_thresholds(text: str, parameters: Mapping[str, str]) -> dict[str, str]:
    """Add thresholds where the labels change, since there must be one for each."""
    before = re.search(_parameter("labels"), text)
    labels = parameters.get("labels")
    if before is None or labels is None or before[2] == labels:
        return dict(parameters)
    chosen = [DEFAULT_THRESHOLDS.get(label.strip(), "0.5") for label in labels.split(",")]
    return {**parameters, "thresholds": ",".join(chosen)}


def _parameter(key: str) -> str:
    value = r'"((?:[^"\\]|\\.)*)"'
    return rf'(parameters:?\s*\{{\s*key:\s*"{key}"\s*value:?\s*\{{\s*string_value:\s*){value}'
