"""Shirts tell rivals apart, whatever the grass round them."""

import numpy as np

from orchestrator.stages.appearance import likeness, shirts

RED, BLUE, GRASS = (200, 30, 30), (30, 60, 200), (60, 140, 60)
BOXES = np.array([(10, 10, 30, 60), (110, 10, 130, 60)], np.float32)


def picture(*colours):
    pixels = np.full((80, 160, 3), GRASS, np.uint8)
    for (x0, y0, x1, _), colour in zip(BOXES.astype(int), colours, strict=True):
        pixels[y0 + 6 : y0 + 28, x0 + 4 : x1 - 4] = colour
    return pixels


def test_the_same_shirt_is_alike_and_another_is_not():
    before, now = shirts(picture(RED, BLUE), BOXES), shirts(picture(BLUE, RED), BOXES)
    alike = likeness(before, now)
    assert alike[0, 1] > 0.95
    assert alike[1, 0] > 0.95
    assert alike.diagonal().max() < 0.2


def test_nobody_wears_nothing():
    assert shirts(picture(RED, BLUE), np.zeros((0, 4), np.float32)).shape == (0, 3)


def test_a_box_at_the_edge_or_of_a_pixel_has_a_colour():
    tiny = np.array([(159, 79, 160, 80), (-5, -5, 3, 3)], np.float32)
    assert np.isfinite(shirts(picture(RED, BLUE), tiny)).all()
