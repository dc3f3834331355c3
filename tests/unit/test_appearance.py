"""Clothes tell rivals apart, whatever the grass round them and whatever the light."""

import numpy as np
import pytest

from orchestrator.stages.appearance import SIZE, clothes, dressed, in_plain_sight, likeness

RED, BLUE, WHITE, GRASS = (200, 30, 30), (30, 60, 200), (240, 240, 240), (60, 140, 60)
BOXES = np.array([(10, 10, 30, 60), (110, 10, 130, 60)], np.float32)


def picture(*kits, light=1.0):
    """People in shirts and shorts, in the places of `BOXES`."""
    pixels = np.full((80, 160, 3), GRASS, np.uint8)
    for (x0, y0, x1, _), (shirt, shorts) in zip(BOXES.astype(int), kits, strict=True):
        pixels[y0 + 6 : y0 + 25, x0 + 4 : x1 - 4] = shirt
        pixels[y0 + 25 : y0 + 36, x0 + 4 : x1 - 4] = shorts
    return (pixels * light).astype(np.uint8)


def worn(*kits, light=1.0):
    return dressed(picture(*kits, light=light), BOXES)[0]


def test_the_same_clothes_are_alike_and_others_are_not():
    before = worn((RED, WHITE), (BLUE, WHITE))
    alike = likeness(before, worn((BLUE, WHITE), (RED, WHITE)))
    assert alike[0, 1] > 0.95
    assert alike[1, 0] > 0.95
    assert alike.diagonal().max() < 0.1


def test_shorts_tell_apart_who_wears_nearly_the_same_shirt():
    alike = likeness(worn((RED, WHITE), (RED, BLUE)), worn((RED, WHITE), (RED, BLUE)))
    assert alike.diagonal().min() > 0.95
    assert max(alike[0, 1], alike[1, 0]) < 0.1


def test_patterns_of_one_mean_colour_differ():
    striped = picture((WHITE, WHITE), (WHITE, WHITE))
    striped[16:35:4, 14:26] = striped[17:35:4, 14:26] = (10, 10, 10)
    striped[16:35, 114:126] = (125, 125, 125)
    both = clothes(striped, BOXES, 1.0)
    assert likeness(both, both)[0, 1] < 0.6  # their shorts are the same


@pytest.mark.parametrize("light", [0.5, 0.75])
def test_clothes_are_known_in_the_dusk(light):
    by_day = worn((RED, WHITE), (BLUE, WHITE))
    alike = likeness(by_day, worn((RED, WHITE), (BLUE, WHITE), light=light))
    assert alike.diagonal().min() > 0.8
    assert max(alike[0, 1], alike[1, 0]) < 0.1


def test_exposure_is_bounded_and_one_without_people():
    assert dressed(picture((RED, WHITE), (BLUE, WHITE)), BOXES[:0])[1] == 1.0
    assert dressed(np.zeros((80, 160, 3), np.uint8), BOXES)[1] == 3.0
    assert dressed(np.full((80, 160, 3), 255, np.uint8), BOXES)[1] == 1.0


def test_shares_of_shirt_and_shorts_sum_to_one():
    sums = worn((RED, WHITE), (BLUE, RED)).reshape(2, 2, -1).sum(axis=2)
    np.testing.assert_allclose(sums, 0.5, rtol=1e-5)


def test_nobody_wears_nothing():
    assert worn((RED, WHITE), (BLUE, WHITE))[:0].shape == (0, SIZE)
    assert clothes(picture((RED, WHITE), (BLUE, WHITE)), BOXES[:0], 1.0).shape == (0, SIZE)


def test_who_is_cut_off_by_the_edge_wears_what_nobody_knows():
    boxes = np.array([(140, 10, 158, 60), (-5, -5, 3, 3), (100, 10, 120, 79)], np.float32)
    found = clothes(picture((RED, WHITE), (BLUE, WHITE)), boxes, 1.0)
    assert np.isnan(found).all()
    assert np.isnan(likeness(found, worn((RED, WHITE), (BLUE, WHITE)))).all()


def test_a_box_of_a_pixel_has_a_colour():
    tiny = np.array([(50, 50, 50.5, 50.5)], np.float32)
    assert np.isfinite(clothes(picture((RED, WHITE), (BLUE, WHITE)), tiny, 1.0)).all()


def test_only_who_stands_nearer_covers_somebodys_clothes():
    behind, before = (10, 10, 30, 60), (14, 14, 34, 64)
    assert in_plain_sight(np.array([behind, before], np.float32)).tolist() == [False, True]
    assert in_plain_sight(np.array([before, behind], np.float32)).tolist() == [True, False]
    apart, feet = (60, 10, 80, 60), (60, 50, 80, 90)
    assert in_plain_sight(np.array([apart, feet], np.float32)).tolist() == [True, True]
    assert in_plain_sight(np.zeros((0, 4), np.float32)).tolist() == []
