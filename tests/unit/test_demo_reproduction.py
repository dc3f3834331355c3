"""`make train-demo` trains what is committed and says where a score falls short."""

import json
import os
import signal
import sys
import threading
import time
import tomllib

import pytest

from tests.unit.tiny_footage import write_footage
from training.__main__ import main as touchline
from training.demo import CONFIGS, MODELS, Figure, main, read_scores, shortfalls, table
from training.errors import InputError
from training.weights.registry import MODEL_REPOSITORY, read_registry

FOUND = {"pooled": {"ap": 0.9}, "ages": [{"iou": 0.6}, {"iou": 0.7}]}


def test_a_score_below_its_noise_is_named_and_one_within_it_is_not():
    expected = {"pooled.ap": Figure(0.92, 0.03), "ages.1.iou": Figure(0.8, 0.05)}
    assert shortfalls(FOUND, expected) == {"ages.1.iou": pytest.approx(0.1)}
    within, short = table("detector", FOUND, expected).splitlines()
    assert within == "| detector | pooled.ap | 0.920 | 0.900 | 0.030 | reached |"
    assert short.endswith("| SHORT |")


def test_better_than_committed_is_never_short():
    assert shortfalls(FOUND, {"ages.0.iou": Figure(0.2, 0.0)}) == {}


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_a_figure_that_could_not_be_taken_is_short(nothing):
    found = {"number": {"precision": nothing}}
    assert list(shortfalls(found, {"number.precision": Figure(0.9, 1.0)})) == ["number.precision"]
    assert table("jersey", found, {"number.precision": Figure(0.9, 1.0)}).endswith("| SHORT |")


def test_the_chain_leads_from_footage_to_compared_scores(tmp_path, monkeypatch, capsys):
    footage, work = write_footage(tmp_path / "footage", 4), tmp_path / "work"
    for number, name in enumerate(("dev_01", "dev_02", "dev_18", "demo_01")):
        for file in sorted(footage.glob(f"clip_{number}.*")):
            file.rename(file.with_name(file.name.replace(f"clip_{number}", name)))

    def in_this_process(*arguments: str) -> str:
        assert touchline(list(arguments)) == 0
        return capsys.readouterr().out

    monkeypatch.setattr("training.demo._touchline", in_this_process)
    places = ["--footage", str(footage), "--work", str(work)]
    assert main(["jersey", "--smoke", *places]) == 0
    assert "every step of the chain ran" in capsys.readouterr().out
    (served,) = (work / "jersey" / "export").glob("*.onnx")
    found = json.loads((work / "jersey" / "scores" / "metrics.json").read_text())
    expected = read_scores()["jersey"]
    assert len(table(served.stem, found, expected).splitlines()) == len(expected)


def test_every_demo_model_has_config_weights_and_scores():
    scores = read_scores()
    ours = {
        path
        for entry in read_registry().entries
        if entry.is_ours
        for file in entry.files
        for path in (file.path, file.path.rpartition("/")[0])
    }
    for model in MODELS:
        assert scores[model.name], f"{model.name} has committed scores"
        assert set(model.committed.values()) <= ours
        assert all((MODEL_REPOSITORY / path).exists() for path in model.committed.values())
        config = tomllib.loads((CONFIGS / f"{model.name}.toml").read_text())
        scored = {clip.partition(":")[0] for clip in model.clips}
        assert not scored & set(config["clips"]["train"])


def test_scores_in_another_form_are_refused(tmp_path):
    path = tmp_path / "demo_scores.json"
    path.write_text('{"detector": {"pooled.ap": {"value": 1}}}')
    with pytest.raises(InputError, match=r"demo_scores.json: (.|\n)*noise"):
        read_scores(path)


def test_a_failing_step_fails_the_whole(tmp_path, capfd):
    arguments = ["detector", "--footage", str(tmp_path / "nowhere"), "--work", str(tmp_path)]
    assert main(arguments) == 1
    errors = capfd.readouterr().err
    assert "nowhere: expected a folder of labelled clips" in errors
    assert "touchline train: failed with exit code 1" in errors


SLOW_TO_SAVE = """#!{python}
import pathlib, signal, sys, time
def save(number, frame):
    time.sleep(0.6)
    pathlib.Path("{folder}/saved").touch()
    sys.exit(130)
signal.signal(signal.{number}, save)
pathlib.Path("{folder}/started").touch()
time.sleep(60)
"""


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_stopped_training_is_given_the_time_to_save(number, tmp_path, monkeypatch):
    command = tmp_path / "touchline"
    command.write_text(SLOW_TO_SAVE.format(python=sys.executable, folder=tmp_path, number=number))
    command.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    def stop():
        while not (tmp_path / "started").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), getattr(signal, number))

    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    threading.Thread(target=stop, daemon=True).start()
    assert main(["embedder", "--footage", str(tmp_path), "--work", str(tmp_path)]) == 130
    assert (tmp_path / "saved").exists()
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before
