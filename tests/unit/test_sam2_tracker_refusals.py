"""Requests that are wrong are refused by name, and leave no trace."""

import numpy as np
import pytest
from sam2_streaming.requests import InvalidRequestError
from sam2_streaming.slots import UnknownSequenceError

from tests.unit.tiny_tracker import (
    BOXES,
    HEIGHT,
    WIDTH,
    assert_same,
    boxes,
    clicks,
    counts_of,
    frame,
    new_tracker,
    request,
)

SMALL = boxes((10, 10, 20, 30))
BAD_REQUESTS = {
    "nan": ("prompt_boxes", {"prompt_boxes": boxes((np.nan, 5, 20, 30))}),
    "infinite": ("prompt_boxes", {"prompt_boxes": boxes((0, 5, np.inf, 30))}),
    "empty box": ("prompt_boxes", {"prompt_boxes": boxes((20, 5, 20, 30))}),
    "inverted box": ("prompt_boxes", {"prompt_boxes": boxes((40, 5, 20, 30))}),
    "outside": ("prompt_boxes", {"prompt_boxes": boxes((500, 5, 520, 30))}),
    "row count": ("prompt_boxes", {"prompt_boxes": boxes((5, 5, 20, 30), (5, 5, 20, 30))}),
    "duplicate": (
        "prompt_object_ids",
        {"prompt_object_ids": np.array([2, 2]), "prompt_boxes": boxes(BOXES[2], BOXES[2])},
    ),
    "zero id": ("prompt_object_ids", {"prompt_object_ids": np.array([0])}),
    "other size": ("frame", {"frame": frame(0, (HEIGHT, WIDTH + 1, 3))}),
    "grey": ("frame", {"frame": frame(0, (HEIGHT, WIDTH, 1))}),
    "float": ("frame", {"frame": frame(0).astype(np.float32)}),
    "sliver": ("frame", {"frame": frame(0, (2, WIDTH, 3))}),
    "mask count": ("prompt_masks", {"prompt_masks": (b"", b"")}),
    "damaged mask": ("prompt_masks", {"prompt_masks": (b"PP",)}),
    "mask of another size": (
        "prompt_masks",
        {"prompt_masks": (counts_of(BOXES[2], (HEIGHT, WIDTH + 1)),)},
    ),
    "empty mask": ("prompt_masks", {"prompt_masks": (counts_of((0, 0, 0, 0)),)}),
    "click beside a mask": (
        "click_object_ids",
        {"prompt_masks": (counts_of(BOXES[2]),), **clicks((2, 40, 40, 1))},
    ),
    "click on a stranger": ("click_object_ids", clicks((3, 40, 40, 1))),
    "click on a forgotten object": ("click_object_ids", clicks((1, 25, 35, 1))),
    "click outside the frame": ("clicks", clicks((2, WIDTH, 40, 1))),
    "click that is no number": ("clicks", clicks((2, np.nan, 40, 1))),
    "click outside the window": ("clicks", clicks((2, 119, 89, 0)) | {"prompt_boxes": SMALL}),
    "click of a third kind": ("clicks", clicks((2, 40, 40, 2))),
    "too many clicks": ("clicks", clicks(*[(2, 40, 40, 1)] * 17)),
    "click rows": ("clicks", {"click_object_ids": np.array([2])}),
    "negative budget": ("max_observed", {"max_observed": -1}),
}


@pytest.mark.parametrize(("tensor", "changes"), BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
def test_a_bad_request_names_its_tensor_and_leaves_no_trace(tensor, changes):
    tracker, untouched = new_tracker(), new_tracker()
    for one in (tracker, untouched):
        one.start(1)
        one.step(request(1, 0, [1]))
    with pytest.raises(InvalidRequestError, match=tensor):
        tracker.step(request(1, 1, [2], [1], **changes))
    assert_same(tracker.step(request(1, 2)), untouched.step(request(1, 2)))


def test_a_bad_request_does_not_harm_its_batch():
    tracker = new_tracker()
    tracker.start(1)
    tracker.start(2)
    outcomes = tracker.step_many(
        [
            request(1, 0, [1]),
            request(2, 0, [1], prompt_boxes=boxes((9, 9, 9, 9))),
            request(3, 0, [1]),
        ]
    )
    assert outcomes[0].object_ids.tolist() == [1]
    assert isinstance(outcomes[1], InvalidRequestError)
    assert isinstance(outcomes[2], UnknownSequenceError)


def test_too_many_objects_are_refused_with_the_limit():
    tracker = new_tracker(max_objects=2)
    tracker.start(1)
    with pytest.raises(InvalidRequestError, match="prompt_object_ids: expected at most 2"):
        tracker.step(request(1, 0, [1, 2, 3]))
    assert len(tracker.step(request(1, 0, [1, 2])).object_ids) == 2
    assert tracker.step(request(1, 1, [3], forget=[1])).object_ids.tolist() == [2, 3]
