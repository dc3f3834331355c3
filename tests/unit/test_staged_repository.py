"""Repositories with overridden parameters."""

from pathlib import Path

import pytest

from deploy.local.repository import config_file, model_names, read_config, staged_repository
from orchestrator.errors import ClusterError

CONFIG = """
name: "%s"
backend: "python"
max_batch_size: 8
parameters { key: "weights" value { string_value: "weights/demo.safetensors" } }
parameters { key: "mode" value { string_value: "window" } }
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    for model in ("tracker", "detector"):
        (root / model / "1").mkdir(parents=True)
        (root / model / "1" / "model.py").write_text("# the model\n")
        (root / model / "configs").mkdir()
        (root / model / "config.pbtxt").write_text(CONFIG % model)
        (root / model / "configs" / "cpu.pbtxt").write_text(CONFIG % model)
    (root / "README.md").write_text("not a model\n")
    return root


def parameter(root: Path, model: str, key: str, variant: str = "cpu") -> str:
    config = read_config(config_file(root, model, variant))
    return str(config.parameters[key].string_value)


def test_models_are_the_folders_with_a_config(repository: Path) -> None:
    (repository / "no_model").mkdir()
    assert model_names(repository) == ("detector", "tracker")


def test_a_model_needs_no_default_config(repository: Path) -> None:
    (repository / "tracker" / "config.pbtxt").unlink()
    assert model_names(repository) == ("detector", "tracker")


def test_a_folder_without_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="expected a folder with Triton models"):
        model_names(tmp_path / "nowhere")


def test_without_overrides_the_repository_is_used_in_place(repository: Path) -> None:
    with staged_repository({}, repository=repository) as staged:
        assert staged == repository


def test_an_override_changes_one_parameter_of_one_model(repository: Path) -> None:
    with staged_repository({"tracker": {"mode": "frame"}}, repository=repository) as staged:
        assert parameter(staged, "tracker", "mode") == "frame"
        assert parameter(staged, "tracker", "weights") == "weights/demo.safetensors"
        assert parameter(staged, "detector", "mode") == "window"
        assert read_config(config_file(staged, "tracker", "cpu")).max_batch_size == 8
        assert model_names(staged) == model_names(repository)
        assert (staged / "tracker" / "1" / "model.py").read_text() == "# the model\n"


def test_an_override_of_the_default_variant_wins_over_config_pbtxt(repository: Path) -> None:
    overrides = {"tracker": {"mode": "frame"}}
    with staged_repository(overrides, repository=repository, variant="default") as staged:
        assert parameter(staged, "tracker", "mode", "default") == "frame"


def test_staging_leaves_the_repository_alone_and_no_files(repository: Path) -> None:
    before = {path: path.read_text() for path in repository.rglob("*") if path.is_file()}
    with staged_repository({"tracker": {"mode": "frame"}}, repository=repository) as staged:
        pass
    assert not staged.exists()
    assert {path: path.read_text() for path in before} == before


def test_the_path_of_existing_weights_becomes_absolute(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.pt").write_bytes(b"weights")
    monkeypatch.chdir(tmp_path)
    with staged_repository({"tracker": {"weights": "tiny.pt"}}, repository=repository) as staged:
        assert parameter(staged, "tracker", "weights") == str(tmp_path / "tiny.pt")


def test_other_values_of_weights_are_left_to_the_model(repository: Path) -> None:
    with staged_repository({"tracker": {"weights": "random"}}, repository=repository) as staged:
        assert parameter(staged, "tracker", "weights") == "random"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"trakcer": {"mode": "frame"}}, "'trakcer': expected one of detector, tracker"),
        ({"tracker": {"mood": "frame"}}, "'mood': .*cpu.pbtxt has the parameters mode, weights"),
    ],
)
def test_unknown_names_are_refused(
    repository: Path, overrides: dict[str, dict[str, str]], message: str
) -> None:
    with (
        pytest.raises(ClusterError, match=message),
        staged_repository(overrides, repository=repository),
    ):
        pytest.fail("the override was accepted")


def test_an_invalid_config_is_named_with_its_line(repository: Path) -> None:
    file = repository / "tracker" / "configs" / "cpu.pbtxt"
    file.write_text('name: "tracker"\nmax_batch_size: many\n')
    with pytest.raises(ClusterError, match=r"tracker/configs/cpu\.pbtxt: 2:"):
        read_config(file)
