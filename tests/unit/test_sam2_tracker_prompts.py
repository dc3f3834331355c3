"""What boxes, masks, clicks, forgetting and a budget do to objects."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tests.unit.tiny_tracker import (
    HEIGHT,
    WIDTH,
    assert_same,
    clicks,
    counts_of,
    new_tracker,
    request,
)


def test_forgetting_and_prompting_in_one_step_starts_anew():
    tracker, fresh = new_tracker(), new_tracker()
    for one in (tracker, fresh):
        one.start(1)
    tracker.step(request(1, 0, [1]))
    again = tracker.step(request(1, 1, [1], forget=[1, 999]))
    assert_same(again, fresh.step(request(1, 1, [1])))


@pytest.mark.parametrize("mode", ["window", "frame"])
def test_a_mask_prompt_is_the_answer_of_its_frame(mode):
    tracker = new_tracker(mode)
    tracker.start(1)
    masks = (counts_of((20, 20, 38, 50)), b"")
    result = tracker.step(request(1, 0, [1, 3], prompt_masks=masks))
    decoded = coco_mask.decode({"size": [HEIGHT, WIDTH], "counts": result.masks[0].encode()})
    prompted = coco_mask.decode({"size": [HEIGHT, WIDTH], "counts": masks[0]})
    assert (decoded & prompted).sum() >= 0.8 * (decoded | prompted).sum()


def test_clicks_correct_a_tracked_object():
    corrected, followed = new_tracker(), new_tracker()
    for tracker in (corrected, followed):
        tracker.start(1)
        before = tracker.step(request(1, 0, [1, 3]))
    x, y = (before.boxes[0, :2] + before.boxes[0, 2:]) / 2
    result = corrected.step(request(1, 1, **clicks((1, x, y, 1), (1, x, y + 3, 0))))
    assert result.object_ids.tolist() == [1, 3]
    assert result.masks[0] != followed.step(request(1, 1)).masks[0]


def test_a_box_for_a_tracked_object_corrects_it_where_forgetting_starts_it_anew():
    masks = []
    for prompts, forget in (([1], []), ([1], [1]), ([], [])):
        tracker = new_tracker("frame")
        tracker.start(1)
        tracker.step(request(1, 0, [1]))
        masks.append(tracker.step(request(1, 1, prompts, forget)).masks[0])
    assert len(set(masks)) == 3


def test_objects_out_of_the_budget_move_on_by_themselves():
    tracker = new_tracker()
    tracker.start(1)
    for number in range(3):
        before = tracker.step(request(1, number, [1, 3] if number == 0 else []))
    result = tracker.step(request(1, 3, [1], max_observed=1))
    assert result.observed.tolist() == [True, False]
    assert 0 < result.scores[1] < before.scores[1]
    x, y, w, h = coco_mask.toBbox({"size": [HEIGHT, WIDTH], "counts": result.masks[1]})
    assert w
    np.testing.assert_array_equal(result.boxes[1], [x, y, x + w, y + h])
    assert tracker.step(request(1, 4, max_observed=0)).observed.all()


def test_a_frame_that_nobody_looked_at_is_not_remembered():
    skipping, ignorant = new_tracker("frame"), new_tracker("frame")
    for tracker in (skipping, ignorant):
        tracker.start(1)
        tracker.step(request(1, 0, [3]))
    assert skipping.step(request(1, 1, [1], max_observed=1)).observed.tolist() == [True, False]
    result, expected = skipping.step(request(1, 2, forget=[1])), ignorant.step(request(1, 2))
    assert_same(result, expected)
