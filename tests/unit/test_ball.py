"""The ball is chosen among candidates and never invented."""

import numpy as np

from orchestrator.stages.ball import BallFollower
from orchestrator.types import Detections


def candidates(*rows: tuple[float, float, float]) -> Detections:
    """Each row: centre x, centre y, confidence."""
    boxes = [(x - 4, y - 4, x + 4, y + 4) for x, y, _ in rows]
    return Detections(
        np.array(boxes, np.float32).reshape(len(rows), 4),
        np.array([c for _, _, c in rows], np.float32),
        ("ball",) * len(rows),
    )


def test_a_frame_without_candidate_has_no_ball():
    follower = BallFollower()
    follower.follow(candidates((100, 100, 0.9)), width=1280)
    assert follower.follow(candidates(), width=1280) is None


def test_a_near_candidate_beats_a_surer_one_far_away():
    follower = BallFollower()
    follower.follow(candidates((100, 100, 0.9)), width=1280)
    ball = follower.follow(candidates((900, 500, 0.8), (110, 100, 0.5)), width=1280)
    assert ball is not None
    assert ball.xyxy[0] == 106


def test_a_much_surer_candidate_wins_anywhere():
    follower = BallFollower()
    follower.follow(candidates((100, 100, 0.9)), width=1280)
    ball = follower.follow(candidates((900, 500, 0.95), (110, 100, 0.31)), width=1280)
    assert ball is not None
    assert ball.xyxy[0] == 896


def test_motion_is_followed_through_a_gap():
    follower = BallFollower()
    for x in (100, 140, 180):
        follower.follow(candidates((x, 100, 0.9)), width=1280)
    follower.follow(candidates(), width=1280)
    ball = follower.follow(candidates((260, 100, 0.4), (130, 100, 0.45)), width=1280)
    assert ball is not None


def test_after_a_long_absence_the_old_place_does_not_count():
    follower = BallFollower()
    follower.follow(candidates((100, 100, 0.9)), width=1280)
    for _ in range(16):
        follower.follow(candidates(), width=1280)
    ball = follower.follow(candidates((1000, 500, 0.5), (100, 100, 0.4)), width=1280)
    assert ball is not None
    assert ball.xyxy[0] == 996
