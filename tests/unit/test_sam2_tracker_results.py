"""What a step answers: boxes, scores and masks of one stream."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from sam2_streaming.tracker import Tracker

from tests.unit.tiny_tracker import (
    BYTES_PER_MEMORY,
    HEIGHT,
    WIDTH,
    assert_same,
    boxes,
    frame,
    new_tracker,
    request,
    tiny_engine,
)


@pytest.mark.parametrize("mode", ["window", "frame"])
def test_results_describe_the_same_mask(mode):
    tracker = new_tracker(mode)
    tracker.start(1)
    result = tracker.step(request(1, 0, [1, 2, 3]))
    assert result.boxes.dtype == result.scores.dtype == np.float32
    assert ((result.scores >= 0) & (result.scores <= 1)).all()
    seen = 0
    for box, counts in zip(result.boxes, result.masks, strict=True):
        x, y, w, h = coco_mask.toBbox({"size": [HEIGHT, WIDTH], "counts": counts})
        np.testing.assert_array_equal(box, [x, y, x + w, y + h])
        seen += bool(w)
    assert seen > 0


@pytest.mark.parametrize("mode", ["window", "frame"])
def test_masks_of_one_stream_never_overlap(mode):
    tracker = new_tracker(mode)
    tracker.start(1)
    for number in range(3):
        result = tracker.step(request(1, number, [1, 2, 3] if number == 0 else []))
        masks = [
            coco_mask.decode({"size": [HEIGHT, WIDTH], "counts": counts.encode()})
            for counts in result.masks
        ]
        overlap = (np.sum(masks, axis=0) > 1).sum()
        assert overlap <= 0.02 * np.sum(masks)


def test_objects_out_of_sight_stay_with_zero_box_and_score():
    tracker = Tracker(tiny_engine(presence=-50.0), "window", slots=1, ttl_s=60)
    tracker.start(1)
    for number in range(35):
        result = tracker.step(request(1, number, [1, 2] if number == 0 else []))
        assert result.object_ids.tolist() == [1, 2]
        assert not result.boxes.any()
        assert not result.scores.any()
    assert tracker.usage().nbytes == 2 * BYTES_PER_MEMORY


def test_large_objects_see_the_whole_frame_in_window_mode():
    whole, framed = new_tracker("window"), new_tracker("frame")
    box = boxes((5, 5, 100, 85), (3, 2, 80, 88))
    for number in range(3):
        prompts = {"prompt_boxes": box} if number == 0 else {}
        results = []
        for tracker in (whole, framed):
            if number == 0:
                tracker.start(1)
            results.append(tracker.step(request(1, number, [1, 2][: 2 - 2 * number], **prompts)))
        assert_same(*results)


def test_frames_may_be_tensors():
    arrays, tensors = new_tracker(), new_tracker()
    for tracker in (arrays, tensors):
        tracker.start(1)
    as_tensor = request(1, 0, [1], frame=torch.from_numpy(frame(0)))
    assert_same(tensors.step(as_tensor), arrays.step(request(1, 0, [1])))


def test_frames_may_lie_on_memory_that_must_not_be_written():
    tracker, plain = new_tracker(), new_tracker()
    for one in (tracker, plain):
        one.start(1)
    shared = frame(0)
    shared.flags.writeable = False
    assert_same(tracker.step(request(1, 0, [1], frame=shared)), plain.step(request(1, 0, [1])))
