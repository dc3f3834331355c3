"""Model repositories: what is in them, and temporary ones with some parameters changed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from deploy.local import ownership
from orchestrator.errors import ClusterError

DEFAULT_REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"

Overrides = Mapping[str, Mapping[str, str]]
"""Model name to config parameters to change, such as `{"sam2_tracker": {"mode": "frame"}}`."""


def model_names(repository: Path) -> tuple[str, ...]:
    """Return the names of all models of a repository, in alphabetical order.

    Raises:
        ClusterError: The repository is missing or holds no model.
    """
    configs = (*repository.glob("*/config.pbtxt"), *repository.glob("*/configs/*.pbtxt"))
    names = {config.relative_to(repository).parts[0] for config in configs}
    if not names:
        raise ClusterError(f"{repository}: expected a folder with Triton models, found none")
    return tuple(sorted(names))


def config_file(repository: Path, model: str, variant: str) -> Path:
    """Return the config that Triton loads a model with in a variant.

    Source: `--model-config-name` of tritonserver falls back to `config.pbtxt`.

    Raises:
        ClusterError: The model has no such config.
    """
    directory = repository / model
    for file in (directory / "configs" / f"{variant}.pbtxt", directory / "config.pbtxt"):
        if file.is_file():
            return file
    raise ClusterError(f"{directory}: expected configs/{variant}.pbtxt or config.pbtxt")


def read_config(file: Path) -> Any:
    """Return a pbtxt file as `ModelConfig` message.

    Raises:
        ClusterError: The file is not a valid model config; names file, line and column.
    """
    try:
        return text_format.Parse(file.read_text(), ModelConfig())
    except text_format.ParseError as error:
        raise ClusterError(f"{file}: {error}") from error


@contextmanager
def staged_repository(
    overrides: Overrides, *, repository: Path = DEFAULT_REPOSITORY, variant: str = "cpu"
) -> Iterator[Path]:
    """Give a repository in which the overrides hold, for the time of the context.

    Without overrides that is the repository itself, otherwise a temporary folder of links to it in
    which only the changed configs are files of their own.

    Args:
        overrides: Parameters must exist in the model's config. The value of `weights` is made
            absolute if it is an existing path; else the model reads it, from its own directory.
        repository: The repository to start from.
        variant: The variant whose configs are changed.

    Raises:
        ClusterError: An override names an unknown model or parameter, or a config is invalid.
    """
    if not overrides:
        yield repository
        return
    name = ownership.owned_name()
    staged = ownership.directory(name)
    try:
        staged.mkdir(mode=0o700)
        for model in model_names(repository):
            (staged / model).symlink_to((repository / model).resolve())
        for model, parameters in overrides.items():
            _stage_model(staged, model, parameters, variant)
        yield staged
    finally:
        ownership.remove(name)


def _stage_model(staged: Path, model: str, parameters: Mapping[str, str], variant: str) -> None:
    """Replace the link to a model by a folder of links with a changed config."""
    folder = staged / model
    if not folder.is_symlink():
        known = ", ".join(sorted(path.name for path in staged.iterdir()))
        raise ClusterError(f"override of model {model!r}: expected one of {known}")
    config = _overridden(config_file(staged, model, variant), parameters)
    original = folder.readlink()
    folder.unlink()
    (folder / "configs").mkdir(parents=True)
    for entry in original.iterdir():
        if entry.name != "configs":
            (folder / entry.name).symlink_to(entry)
    (folder / "configs" / f"{variant}.pbtxt").write_text(text_format.MessageToString(config))


def _overridden(file: Path, parameters: Mapping[str, str]) -> Any:
    config = read_config(file)
    for key, value in parameters.items():
        if key not in config.parameters:
            known = ", ".join(sorted(config.parameters)) or "none"
            raise ClusterError(f"override of {key!r}: {file} has the parameters {known}")
        config.parameters[key].string_value = _absolute(value) if key == "weights" else value
    return config


def _absolute(weights: str) -> str:
    path = Path(weights).expanduser()
    return str(path.resolve()) if path.exists() else weights
