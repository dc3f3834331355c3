"""Configs of fine-tuning: the committed ones load, and every fault is named with its key."""

import importlib
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from training.__main__ import main
from training.errors import InputError
from training.run.command import CONFIGS, MODELS
from training.run.config import RunConfig, Stage, load
from training.run.folder import data_folder, open_run, sole_use


class Config(RunConfig):
    stages: tuple[Stage, ...]


GOOD = """
seed = 3
[clips]
train = ["a", "b"]
[[stages]]
name = "only"
steps = 10
learning_rate = 0.1
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "x.toml").write_text(GOOD)
    return tmp_path / "x.toml"


@pytest.mark.parametrize("model", ["tracker", "jersey", "embedder"])
def test_the_committed_config_of_each_model_loads_and_takes_changes(model):
    kind = importlib.import_module(MODELS[model]).Config
    path = CONFIGS / f"{model}.toml"
    assert load(kind, path).seed == 0
    changed = load(kind, path, ["seed=5", "stages.0.steps=7", "precision=fp32"])
    assert (changed.seed, changed.stages[0].steps, changed.precision) == (5, 7, "fp32")
    assert not set(changed.clips.train) & set(changed.clips.held_out)


def test_a_table_that_a_file_leaves_to_its_defaults_can_be_changed():
    kind, path = importlib.import_module(MODELS["tracker"]).Config, CONFIGS / "tracker.toml"
    changed = load(kind, path, ["stages.0.prompts.mask=2", "stages.0.prompts.box=0.5"])
    assert (changed.stages[0].prompts.mask, changed.stages[0].prompts.box) == (2, 0.5)
    with pytest.raises(InputError, match=r"stages\.0\.prompt: expected one of the keys name"):
        load(kind, path, ["stages.0.prompt.mask=2"])


@pytest.mark.parametrize(
    ("model", "assignment", "message"),
    [
        ("tracker", "betas=[1.0,0.9]", r"betas\.0: Input should be less than 1"),
        ("embedder", "network.heads=3", "network: .*expected width to be a multiple of heads"),
        ("embedder", "network.patch_size=7", "expected image_size to be a multiple of patch_size"),
    ],
)
def test_sizes_that_no_network_can_have_are_refused_by_name(model, assignment, message):
    kind = importlib.import_module(MODELS[model]).Config
    with pytest.raises(InputError, match=message):
        load(kind, CONFIGS / f"{model}.toml", [assignment])


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["seed=-1"], r"seed: Input should be greater than or equal to 0, found -1"),
        (["device=tpu"], r"device: Input should be 'auto', 'cpu' or 'cuda', found 'tpu'"),
        (["stages.0.steps=many"], r"stages\.0\.steps: .*integer.*found 'many'"),
        (["stages.0.step=1"], r"stages\.0\.step: expected one of the keys name, steps, learning"),
        (["clips.test=[]"], r"clips\.test: expected one of the keys train, held_out"),
        (["sede=1"], r"sede: expected one of the keys clips, seed"),
        (['clips.held_out=["b"]'], r"clips: .*expected held_out without clips of train, got \['b"),
        (["clips.train=[]"], r"clips\.train: Tuple should have at least 1 item"),
        (["stages.1.steps=2"], r"--set stages\.1\.steps=2: expected a key of the config"),
        (["seed"], r"--set seed: expected key=value"),
        (["seed.x=1"], r"--set seed\.x=1: expected a key of the config"),
    ],
)
def test_a_wrong_key_or_value_is_refused_naming_file_key_and_expectation(
    path, assignments, message
):
    with pytest.raises(InputError, match=message) as caught:
        load(Config, path, assignments)
    assert str(path) in str(caught.value) or "--set" in str(caught.value)


def test_every_fault_of_a_file_is_named_at_once(path):
    path.write_text(GOOD.replace("steps = 10\n", "").replace("seed = 3", "seed = true\nx = 1"))
    with pytest.raises(InputError) as caught:
        load(Config, path)
    lines = str(caught.value).splitlines()
    assert f"{path}: stages.0.steps: expected this key" in lines
    assert any(line.startswith(f"{path}: x: expected one of the keys") for line in lines)


@pytest.mark.parametrize("content", [b"seed = ", b"\xff\xfe"])
def test_what_is_not_toml_is_refused_naming_the_file(path, content):
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.toml: expected TOML"):
        load(Config, path)


def test_a_stage_warms_up_and_falls_on_a_cosine():
    stage = Stage(name="s", steps=100, learning_rate=1.0, final_learning_rate=0.2, warmup_steps=10)
    rates = [stage.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1, rel=0.01)
    assert max(rates) == rates[9]
    assert rates[50] == pytest.approx(0.6)
    assert rates[99] == pytest.approx(0.2, abs=1e-3)
    assert all(a > b for a, b in pairwise(rates[10:]))


def test_a_folder_with_a_run_of_another_config_is_refused_naming_the_key(path, tmp_path):
    config = load(Config, path)
    run = open_run(config, tmp_path)
    assert open_run(config, tmp_path) == run
    (run / "train.jsonl").write_text("{}\n")
    other = load(Config, path, ["stages.0.learning_rate=0.2"])
    with pytest.raises(InputError, match=r"stages\.0\.learning_rate differs.*--restart"):
        open_run(other, tmp_path)
    # Where and how fast it runs does not make it another run.
    open_run(load(Config, path, ["device=cuda", "workers=4", "checkpoint_seconds=9"]), tmp_path)


def test_a_run_killed_while_its_config_was_written_begins_anew(path, tmp_path, monkeypatch):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            open_run(load(Config, path), tmp_path)
    run = open_run(load(Config, path, ["seed=4"]), tmp_path)
    (run / "train.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="seed differs"):
        open_run(load(Config, path), tmp_path)


def test_a_run_that_has_left_nothing_takes_a_corrected_config(path, tmp_path):
    """As one whose network cannot be built from its config, which is found out after it is kept."""
    run = open_run(load(Config, path, ["seed=4"]), tmp_path)
    (run / "stage").mkdir()
    corrected = load(Config, path)
    open_run(corrected, tmp_path)
    (run / "stage" / "checkpoint.pt").touch()
    open_run(corrected, tmp_path)
    with pytest.raises(InputError, match="seed differs"):
        open_run(load(Config, path, ["seed=4"]), tmp_path)


def test_a_second_training_in_one_folder_is_refused(tmp_path):
    work, expected = tmp_path / "work", "work: expected no other training"
    with sole_use(work), pytest.raises(InputError, match=expected), sole_use(work):
        pass
    with sole_use(work):  # it is over
        pass


def test_data_of_other_clips_lies_in_another_folder(tmp_path):
    folders = {
        data_folder(tmp_path, "crops", tmp_path / footage, clips)
        for footage, clips in [("a", ("x",)), ("a", ("x", "y")), ("b", ("x",)), ("a", ("x",))]
    }
    assert len(folders) == 3


def test_data_of_labels_that_were_mended_since_lies_in_another_folder(tmp_path):
    def folder(*settings):
        return data_folder(tmp_path, "crops", tmp_path, ("match_1", "held out"), *settings)

    labels = tmp_path / "match_1.gt.json.gz"
    labels.write_bytes(b"wrong")
    before = folder()
    (tmp_path / "match_10.gt.json.gz").write_bytes(b"another clip")
    assert folder() == before
    assert folder("kits=2") != before
    labels.write_bytes(b"mended")
    assert folder() != before


def test_the_command_names_what_is_wrong(tmp_path, capsys):
    base = ["train", "jersey", "--work", str(tmp_path / "work"), "--footage"]
    assert main([*base, str(tmp_path / "nowhere")]) == 1
    assert "nowhere: expected a folder of labelled clips" in capsys.readouterr().err
    assert main([*base, str(tmp_path), "--config", str(tmp_path / "none.toml")]) == 1
    assert "none.toml" in capsys.readouterr().err
    assert main([*base, str(tmp_path), "--set", "backbone=resnet9"]) == 1
    assert "jersey.toml with backbone=resnet9: backbone: " in capsys.readouterr().err


def test_help_needs_no_torch():
    code = (
        "import sys; from training.__main__ import main\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit: assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--restart" in done.stdout
