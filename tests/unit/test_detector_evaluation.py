"""The detector's scores tell a perfect answer from a damaged one."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_data import write_coco

from orchestrator.types.detections import Detections
from training.detector.evaluate import (
    BallScores,
    FrameResult,
    ball_scores,
    best_ball_threshold,
    evaluate,
    person_scores,
)
from training.errors import InputError

DATA = Path(__file__).parents[1] / "data"
DEMO = Path(__file__).parents[2] / "model_repository" / "rfdetr_detector" / "weights" / "demo.onnx"
PEOPLE = np.array([[100, 100, 140, 200], [300, 120, 340, 220]], np.float32)


def frame(found: np.ndarray, *, score: float = 0.9, distance: float = 2.0) -> FrameResult:
    confidence = np.full(len(found), 0.8, np.float32)
    return FrameResult(
        people=PEOPLE,
        is_ignored=np.zeros(2, bool),
        found=Detections(found.astype(np.float32), confidence, ("person",) * len(found)),
        has_ball=True,
        ball_score=score,
        ball_distance=distance,
    )


def test_true_boxes_score_one_and_damaged_ones_less():
    perfect = [frame(PEOPLE)] * 4
    assert person_scores(perfect).ap50 == pytest.approx(1.0)
    assert person_scores(perfect).ap == pytest.approx(1.0)
    shifted = [frame(PEOPLE + 12)] * 4  # IoU 0.45
    assert person_scores(shifted).ap50 == 0.0
    halved = [frame(PEOPLE), frame(PEOPLE[:0])] * 2
    assert person_scores(halved).ap50 == pytest.approx(0.5, abs=0.01)


def test_a_detector_that_finds_nobody_scores_nothing():
    scores = person_scores([frame(PEOPLE[:0])] * 2)
    assert (scores.ap50, scores.ap) == (0.0, 0.0)


def test_where_nothing_is_to_be_found_nothing_is_measured():
    nobody = replace(
        frame(PEOPLE),
        people=PEOPLE[:0],
        is_ignored=np.zeros(0, bool),
        has_ball=False,
        ball_distance=math.inf,
    )
    people = person_scores([nobody])
    assert (people.ap50, people.ap, people.best_threshold) == (None, None, None)
    assert best_ball_threshold([nobody]) is None
    assert ball_scores([nobody], None) == BallScores(None, None)
    assert ball_scores([nobody], 0.5) == BallScores(recall=None, precision=0.0)
    silent = replace(frame(PEOPLE), ball_score=0.0)
    assert ball_scores([silent], 0.5) == BallScores(recall=0.0, precision=None)


def test_footage_of_any_format_is_scored_and_stills_are_all_looked_at(tmp_path):
    footage = write_coco(tmp_path)
    found = evaluate(DEMO, footage, ())
    assert {name: one["frames"] for name, one in found["clips"].items()} == {
        "match_a": 2,
        "match_b": 1,
    }
    assert list(evaluate(DEMO, footage, ("match_b",))["clips"]) == ["match_b"]
    with pytest.raises(InputError, match="expected a clip dev_05, found match_a, match_b"):
        evaluate(DEMO, footage, ("dev_05",))


def test_a_hidden_person_is_neither_asked_for_nor_held_against():
    hidden = replace(frame(PEOPLE[:1]), is_ignored=np.array([False, True]))
    assert person_scores([hidden]).ap50 == pytest.approx(1.0)
    found = replace(hidden, found=frame(PEOPLE).found)
    assert person_scores([found]).ap50 == pytest.approx(1.0)


def test_a_ball_counts_within_eight_pixels():
    near, far = frame(PEOPLE, distance=8.0), frame(PEOPLE, distance=8.1)
    scores = ball_scores([near, far], 0.5)
    assert (scores.recall, scores.precision) == (0.5, 0.5)
    unsure = frame(PEOPLE, score=0.2, distance=50.0)
    assert best_ball_threshold([near, unsure]) > 0.2


def test_the_demo_weights_find_people_on_a_clip_never_trained_on():
    scores = evaluate(DEMO, DATA, ["demo_01"])
    assert scores["clips"]["demo_01"] == scores["pooled"]
    assert scores["pooled"]["frames"] == 30
    assert scores["pooled"]["person_ap50"] > 0.9
    assert 0 < scores["thresholds"]["ball"] < 1


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "x.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(InputError, match=r"x\.onnx: expected an ONNX file"):
        evaluate(path, DATA, ["demo_01"])
    jersey = DEMO.parents[2] / "resnet_jersey" / "weights" / "demo.onnx"
    with pytest.raises(InputError, match="expected a detector"):
        evaluate(jersey, DATA, ["demo_01"])
