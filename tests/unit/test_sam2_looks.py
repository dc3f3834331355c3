"""Masks that went over to somebody in another shirt are emptied, and nobody else's."""

import cv2
import numpy as np
import pytest
import torch
from sam2_streaming.looks import _lab, settled
from sam2_streaming.windows import Follower, Window

SIZE = 64
RED, BLUE = (200, 30, 30), (30, 60, 200)
HERE = Window(100, 100, SIZE, SIZE)
LEFT, RIGHT = (18, 12, 34, 52), (26, 12, 42, 52)
UNKNOWN = (torch.nan,) * 3


def picture(*dressed):
    pixels = torch.full((SIZE, SIZE, 3), 60, dtype=torch.uint8)
    for (x0, y0, x1, y1), colour in dressed:
        pixels[y0:y1, x0:x1] = torch.tensor(colour, dtype=torch.uint8)
    return pixels


def mask(box=None):
    logits = torch.full((SIZE, SIZE), -3.0)
    if box is not None:
        logits[box[1] : box[3], box[0] : box[2]] = 3.0
    return logits


def look(colour):
    return _lab(torch.tensor([colour], dtype=torch.float32))[0]


def follower(box):
    corners = np.array(box, np.float32) + np.array([HERE.x0, HERE.y0] * 2, np.float32)
    return Follower.at(corners)


def settle(seen, masks, places, looks, prompted=()):
    """Two who see the same window; returns whose masks are left, and the looks."""
    logits, after = settled(
        torch.stack(masks),
        torch.stack([seen] * len(masks)),
        [HERE] * len(masks),
        [follower(place) for place in places],
        torch.stack([torch.as_tensor(one) for one in looks]),
        torch.tensor([k in prompted for k in range(len(masks))]),
    )
    return [bool((of_one > 0).any()) for of_one in logits], after


def test_a_mask_on_a_rival_is_emptied_and_its_look_stays():
    red, blue = look(RED), look(BLUE)
    seen = picture((LEFT, RED), (RIGHT, BLUE))
    left, looks = settle(seen, [mask(RIGHT), mask()], [LEFT, RIGHT], [red, blue])
    assert left == [False, False]
    torch.testing.assert_close(looks, torch.stack([red, blue]))
    left, _ = settle(seen, [mask(RIGHT), mask(RIGHT)], [LEFT, RIGHT], [red, blue])
    assert left == [False, True]


@pytest.mark.parametrize(
    ("places", "looks"),
    [
        ([LEFT, RIGHT], [BLUE, BLUE]),
        ([LEFT, (48, 12, 62, 52)], [RED, BLUE]),
        ([LEFT, RIGHT], [None, BLUE]),
        ([LEFT, RIGHT], [RED, None]),
    ],
    ids=["alike", "far", "look unknown", "rival's unknown"],
)
def test_masks_that_prove_nothing_are_left_alone(places, looks):
    known = [torch.tensor(UNKNOWN) if colour is None else look(colour) for colour in looks]
    left, _ = settle(picture((RIGHT, BLUE)), [mask(RIGHT), mask()], places, known)
    assert left[0]


def test_what_was_just_shown_is_right_and_so_is_its_colour():
    known = [look(RED), look(BLUE)]
    left, looks = settle(
        picture((RIGHT, BLUE)), [mask(RIGHT), mask()], [LEFT, RIGHT], known, prompted={0}
    )
    assert left[0]
    torch.testing.assert_close(looks[0], look(BLUE), atol=0.1, rtol=0)


def test_the_first_look_is_taken_whole_and_later_ones_in_part_when_alone():
    places, seen = [LEFT, (48, 12, 62, 52)], picture((LEFT, BLUE))
    _, first = settle(seen, [mask(LEFT), mask()], places, [UNKNOWN, UNKNOWN])
    torch.testing.assert_close(first[0], look(BLUE), atol=0.1, rtol=0)
    assert first[1].isnan().all()
    _, later = settle(seen, [mask(LEFT), mask()], places, [look(RED), look(RED)])
    torch.testing.assert_close(later[0], 0.9 * look(RED) + 0.1 * look(BLUE), atol=0.1, rtol=0)
    torch.testing.assert_close(later[1], look(RED))
    _, crowded = settle(seen, [mask(LEFT), mask()], [LEFT, RIGHT], [look(RED), look(RED)])
    torch.testing.assert_close(crowded[0], look(RED))


def test_colours_are_those_of_opencv():
    rgb = np.random.default_rng(0).integers(0, 256, (1000, 1, 3), np.uint8)
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[:, 0].astype(np.float32) - (0, 128, 128)
    np.testing.assert_allclose(_lab(torch.from_numpy(rgb[:, 0]).float()).numpy(), lab, atol=1.5)
