"""The camera's motion is measured from the pictures alone."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.stages.camera import CameraMotion, _fit

NOBODY = np.zeros((0, 4), np.float32)
CORNERS = np.array([[100, 100, 140, 180], [600, 300, 640, 380]], np.float32)


def scene(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (45, 60, 3), np.uint8)
    return cv2.resize(coarse, (960, 720), interpolation=cv2.INTER_CUBIC)


@settings(max_examples=15, deadline=None)
@given(st.integers(-30, 30), st.integers(-20, 20), st.integers(0, 2**16))
def test_a_pan_is_measured_to_a_pixel(dx, dy, seed):
    wide = scene(seed)
    camera = CameraMotion()
    camera.advance(wide[60:600, 80:880], NOBODY)
    camera.advance(wide[60 - dy : 600 - dy, 80 - dx : 880 - dx], NOBODY)
    assert np.abs(camera.shift.moved(CORNERS) - CORNERS - (dx, dy, dx, dy)).max() < 1
    assert camera.likeness > 0.5


@pytest.mark.parametrize("width", [1920, 2999])
def test_a_pan_of_a_large_picture_is_measured_though_not_every_pixel_is_read(width):
    wide = cv2.resize(scene(3), (width + 40, 1120), interpolation=cv2.INTER_CUBIC)
    camera = CameraMotion()
    for dx, dy in ((0, 0), (17, 9)):
        camera.advance(wide[20 - dy :, 20 - dx :][:1080, :width], NOBODY)
    assert np.abs(camera.shift.moved(CORNERS) - CORNERS - (17, 9, 17, 9)).max() < 1


def test_a_zoom_makes_boxes_larger():
    wide = scene(4)
    zoomed = cv2.resize(wide, None, fx=1.05, fy=1.05, interpolation=cv2.INTER_CUBIC)[:720, :960]
    camera = CameraMotion()
    for picture in (wide, zoomed):
        camera.advance(picture, NOBODY)
    assert np.abs(camera.shift.moved(CORNERS) - 1.05 * CORNERS).max() < 2


@pytest.mark.parametrize("box", [(100, 100, 600, 400), (100, 100, 600, 700), (-90, -50, 600, 400)])
def test_people_who_walk_do_not_move_the_scene(box):
    wide, crowd = scene(5)[:540, :800], scene(6)[:300, :500]
    box = np.array([box], np.float32)
    camera = CameraMotion()
    for step in (0, 9):
        picture = wide.copy()
        picture[100:400, 100 + step : 600 + step] = crowd
        camera.advance(picture, box)
    assert np.abs(camera.shift.moved(CORNERS) - CORNERS).max() < 1


def test_what_is_drawn_over_the_picture_does_not_stop_the_scene():
    wide, bar = scene(7), scene(8)[:120, :400]
    camera = CameraMotion()
    for step in (0, 12):
        picture = wide[:540, 60 - step :][:, :800].copy()
        picture[:120, :400] = bar
        camera.advance(picture, NOBODY)
    assert np.abs(camera.shift.moved(CORNERS) - CORNERS - (12, 0, 12, 0)).max() < 1


def test_the_first_frame_and_a_cut_count_as_standing_still():
    camera = CameraMotion()
    camera.advance(scene(1), NOBODY)
    assert camera.likeness == 1
    assert camera.shift.moved(CORNERS).tolist() == CORNERS.tolist()
    camera.advance(scene(2), NOBODY)
    assert camera.likeness < 0.3
    assert camera.shift.moved(CORNERS).tolist() == CORNERS.tolist()


def test_after_a_cut_the_camera_is_followed_anew():
    camera = CameraMotion()
    camera.advance(scene(1), NOBODY)
    wide = scene(2)
    for step in (0, 10, 20):
        camera.advance(wide[:540, 60 - step :][:, :800], NOBODY)
    assert np.abs(camera.shift.moved(CORNERS) - CORNERS - (10, 0, 10, 0)).max() < 1


@pytest.mark.parametrize(("width", "height"), [(8192, 16), (16, 8192), (16, 16)])
def test_pictures_of_any_admitted_form_are_followed(width, height):
    camera = CameraMotion()
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
        camera.advance(pixels, NOBODY)
    assert np.isfinite(camera.shift.moved(CORNERS)).all()


@pytest.mark.parametrize("height", [540, 40])
def test_a_picture_without_structure_counts_as_standing_still(height):
    camera = CameraMotion()
    for _ in range(2):
        camera.advance(np.full((height, 960, 3), 90, np.uint8), NOBODY)
    assert camera.likeness == 1
    assert camera.shift.moved(CORNERS).tolist() == CORNERS.tolist()


@pytest.mark.parametrize("grey", [0, 255])
def test_a_flash_or_a_black_picture_is_passed_over(grey):
    wide, nothing = scene(9), np.full((540, 800, 3), grey, np.uint8)
    nothing[::7, ::5] ^= 1  # as a camera's noise
    camera = CameraMotion()
    camera.advance(wide[:540, 60:860], NOBODY)
    for _ in range(2):
        camera.advance(nothing, NOBODY)
        assert camera.goes_on
        assert camera.shift.moved(CORNERS).tolist() == CORNERS.tolist()
    camera.advance(wide[:540, 45:845], NOBODY)
    assert np.abs(camera.shift.moved(CORNERS) - CORNERS - (15, 0, 15, 0)).max() < 1


def test_a_cut_by_way_of_black_is_seen():
    camera = CameraMotion()
    for picture in (scene(1), np.zeros((720, 960, 3), np.uint8), scene(2)):
        camera.advance(picture, NOBODY)
    assert not camera.goes_on


@pytest.mark.parametrize("map_by_chance", [np.diag([-1, 1]), np.diag([0.3, 0.3]), np.zeros((2, 2))])
def test_a_map_that_no_camera_makes_is_not_believed(map_by_chance):
    start = np.random.default_rng(0).uniform(50, 400, (30, 2)).astype(np.float32)
    affine, share = _fit(start, (start @ map_by_chance.T + 3).astype(np.float32))
    assert share == 0
    assert affine.tolist() == [[1, 0, 0], [0, 1, 0]]
