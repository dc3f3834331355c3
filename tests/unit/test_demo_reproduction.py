"""`make train-demo` trains what is committed and says where a score falls short."""

import tomllib

import pytest

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
