"""The camera's motion is measured from the pictures alone."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.stages.camera import CameraMotion


def scene(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (90, 120, 3), np.uint8).repeat(8, 0).repeat(8, 1)


@settings(max_examples=25, deadline=None)
@given(st.integers(-40, 40), st.integers(-30, 30), st.integers(0, 2**16))
def test_a_sudden_move_is_measured_to_a_few_pixels(dx, dy, seed):
    wide = scene(seed)
    camera = CameraMotion(blend=0.5)
    camera.advance(wide[60:600, 80:880])
    camera.advance(wide[60 - dy : 600 - dy, 80 - dx : 880 - dx])
    expected = np.array([dx, dy]) * (np.hypot(dx, dy) > 5)
    slack = 4 if abs(np.hypot(dx, dy) - 5) > 4 else 10
    assert np.abs(camera.jerk - expected).max() < slack


def test_a_lasting_pan_becomes_steady_motion():
    wide = scene(3)
    camera = CameraMotion(blend=0.5)
    for index in range(9):
        camera.advance(wide[60:600, 150 - 15 * index :][:, :800])
    assert np.abs(camera.pan - (15, 0)).max() < 2
    assert camera.jerk.tolist() == [0, 0]


def test_the_first_frame_and_a_cut_count_as_standing_still():
    camera = CameraMotion(blend=0.5)
    for seed in (1, 2):
        camera.advance(scene(seed))
        assert camera.jerk.tolist() == [0, 0]


def test_a_picture_without_structure_counts_as_standing_still():
    camera = CameraMotion(blend=0.5)
    for _ in range(2):
        camera.advance(np.full((540, 960, 3), 90, np.uint8))
    assert camera.jerk.tolist() == camera.pan.tolist() == [0, 0]
