"""The figures that tell a sound conversion from a harmful one."""

import numpy as np
import pytest

from training.errors import InputError
from training.export.agreement import classifier_agreement, detector_agreement, violations

RNG = np.random.default_rng(0)
LIMITS = {"finite": 1.0, "matched": 0.98, "overlap": 0.99, "logit_error": 0.1, "ap": 0.98}


def detections(score=2.0):
    """Eight boxes on one picture, the last four of another label, all far apart."""
    centres = np.stack(np.meshgrid([0.2, 0.4, 0.6, 0.8], [0.3, 0.7]), -1).reshape(-1, 2)
    boxes = np.concatenate([centres, np.full((8, 2), 0.1)], 1)
    logits = np.full((8, 3), -6.0)
    logits[:4, 0] = logits[4:, 1] = score
    logits[:, :2] += RNG.normal(0, 0.01, (8, 2))
    return {"boxes": boxes[None].astype(np.float32), "logits": logits[None].astype(np.float32)}


def changed(reference, name, rows, value):
    values = reference[name].copy()
    values[0, rows] = value
    return {**reference, name: values}


def test_a_model_agrees_with_itself():
    one = detections()
    found = detector_agreement(one, one)
    assert found == pytest.approx(
        {"finite": 1, "matched": 1, "overlap": 1, "logit_error": 0, "ap": 1}, abs=1e-6
    )
    assert violations(found, LIMITS) == []


def test_the_order_of_queries_does_not_matter():
    one = detections()
    shuffled = {name: values[:, ::-1] for name, values in one.items()}
    assert violations(detector_agreement(one, shuffled), LIMITS) == []


def test_a_lost_box_an_invented_box_and_a_wrong_label_are_seen():
    one = detections()
    lost = changed(one, "logits", 0, -6.0)
    assert detector_agreement(one, lost)["matched"] == pytest.approx(7 / 8)
    assert detector_agreement(lost, one)["matched"] == pytest.approx(7 / 8)
    relabelled = changed(one, "logits", 0, [-6.0, 2.0, -6.0])
    assert detector_agreement(one, relabelled)["matched"] == pytest.approx(7 / 8)


def test_a_shifted_box_lowers_the_overlap_and_the_average_precision():
    one = detections()
    shifted = changed(one, "boxes", 0, [0.21, 0.3, 0.1, 0.1])
    found = detector_agreement(one, shifted)
    assert found["matched"] == 1.0
    assert found["overlap"] == pytest.approx((7 + 9 / 11) / 8)
    assert found["ap"] < 0.98


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_break_the_limits(value):
    one = detections()
    broken = violations(detector_agreement(one, changed(one, "logits", 3, value)), LIMITS)
    assert any(text.startswith("finite") for text in broken)


def test_a_reference_that_finds_nothing_judges_nothing():
    silent = detections(score=-5.0)
    with pytest.raises(InputError, match="finds nothing above 0.1 .* expected pictures of matches"):
        detector_agreement(silent, silent)


def test_a_candidate_that_finds_nothing_fails_every_figure_but_one():
    broken = violations(detector_agreement(detections(), detections(score=-5.0)), LIMITS)
    assert [text.split()[0] for text in broken] == ["matched", "overlap", "logit_error", "ap"]


def test_heads_of_a_classifier_are_judged_one_by_one():
    reference = {
        "tens": RNG.normal(0, 3, (40, 11)).astype(np.float32),
        "number_visible": np.where(np.arange(40) % 2, 1, -1)[:, None].astype(np.float32),
    }
    candidate = {
        "tens": reference["tens"][:, ::-1],
        "number_visible": reference["number_visible"] + 0.25,
    }
    found = classifier_agreement(reference, candidate)
    assert found["tens.top1"] < 0.5
    assert found["tens.cosine"] < 0.5
    assert found["number_visible.top1"] == 1.0
    assert found["number_visible.logit_error"] == 0.25
    assert "number_visible.cosine" not in found
    limits = {"finite": 1.0, "top1": 0.9, "cosine": 0.9, "logit_error": 100}
    broken = violations(found, limits)
    assert [text.split()[0] for text in broken] == ["tens.top1", "tens.cosine"]


def test_a_figure_that_is_no_number_breaks_its_limit():
    assert violations({"ap": float("nan")}, {"ap": 0.5}) == ["ap nan, at least 0.5"]
    assert violations({"logit_error": float("nan")}, {"logit_error": 1.0})
