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
def test_a_pan_is_measured_to_a_few_pixels(dx, dy, seed):
    wide = scene(seed)
    motion = CameraMotion()
    motion.shift(wide[60:600, 80:880])
    moved = motion.shift(wide[60 - dy : 600 - dy, 80 - dx : 880 - dx])
    assert np.abs(moved - (dx, dy)).max() < 4


def test_the_first_frame_and_a_cut_count_as_standing_still():
    motion = CameraMotion()
    assert motion.shift(scene(1)).tolist() == [0, 0]
    assert motion.shift(scene(2)).tolist() == [0, 0]


def test_a_picture_without_structure_counts_as_standing_still():
    motion = CameraMotion()
    plain = np.full((540, 960, 3), 90, np.uint8)
    motion.shift(plain)
    assert np.abs(motion.shift(plain)).max() < 1e-3
