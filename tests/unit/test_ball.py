"""The ball is chosen among candidates, looked at closely where it should be, and never invented."""

import numpy as np
import pytest

from orchestrator.errors import ModelError, ModelUnavailableError
from orchestrator.session import StreamSession
from orchestrator.settings import Settings
from orchestrator.stages.ball import BallFollower
from orchestrator.types.detections import Detections
from orchestrator.types.frames import Encoding, Frame, FrameHeader
from orchestrator.types.streams import StreamConfig
from tests.unit.scripted_triton import ScriptedTriton

WIDTH, HEIGHT = 1280, 720
NOTHING = Detections.joined()


def candidates(*rows: tuple[float, float, float]) -> Detections:
    """Each row: centre x, centre y, confidence."""
    boxes = [(x - 4, y - 4, x + 4, y + 4) for x, y, _ in rows]
    return Detections(
        np.array(boxes, np.float32).reshape(len(rows), 4),
        np.array([c for _, _, c in rows], np.float32),
        ("ball",) * len(rows),
    )


class ScriptedDetector:
    """Answers the close looks with what is written down, and remembers where it looked."""

    ball_threshold = 0.3

    def __init__(self, *answers: Detections | ModelError) -> None:
        self.answers = list(answers)
        self.windows: list[np.ndarray] = []

    async def look_for_ball(self, frame: Frame, window: np.ndarray) -> Detections:
        self.windows.append(window)
        answer = self.answers.pop(0) if self.answers else NOTHING
        if isinstance(answer, ModelError):
            raise answer
        return answer


def frame(width: int = WIDTH, height: int = HEIGHT) -> Frame:
    return Frame(FrameHeader(0), np.zeros((height, width, 3), np.uint8))


async def follow(follower: BallFollower, *hints: tuple[float, float, float]):
    ball, _ = await follower.follow(frame(), candidates(*hints))
    return ball


async def test_a_frame_without_candidate_has_no_ball():
    follower = BallFollower(ScriptedDetector(), frame_rate=25)
    await follow(follower, (100, 100, 0.9))
    assert await follow(follower) is None


async def trusted(detector: ScriptedDetector | None = None) -> BallFollower:
    """A follower that has seen the ball clearly and closely at (100, 100) for a while."""
    detector = detector or ScriptedDetector()
    detector.answers = [candidates((100, 100, 0.9))] * 8 + detector.answers
    follower = BallFollower(detector, frame_rate=25)
    for _ in range(8):
        await follow(follower)
    return follower


async def test_a_near_candidate_beats_a_surer_one_far_away():
    ball = await follow(await trusted(), (900, 500, 0.8), (110, 100, 0.5))
    assert ball is not None
    assert ball.xyxy[0] == 106


async def test_a_trail_that_began_in_doubt_gives_way_to_a_surer_candidate():
    detector = ScriptedDetector(*[candidates((100, 100, 0.32))] * 3, candidates((900, 500, 0.8)))
    follower = BallFollower(detector, frame_rate=25)
    for _ in range(3):
        await follow(follower, (900, 500, 0.4))
    ball = await follow(follower, (900, 500, 0.4))
    assert ball is not None
    assert ball.xyxy[0] == 896


async def test_while_the_trail_is_doubtful_hints_elsewhere_are_looked_at():
    detector = ScriptedDetector(*[candidates((100, 100, 0.32))] * 6)
    follower = BallFollower(detector, frame_rate=25)
    for _ in range(6):
        await follow(follower, (900, 500, 0.2))
    once_followed = {float((w[0] + w[2]) / 2) for w in detector.windows[1:]}
    assert once_followed == {180.0, 900.0}, "the trail at the left edge, and the hint"


async def test_several_hints_are_looked_at_in_turn():
    detector = ScriptedDetector()
    follower = BallFollower(detector, frame_rate=25)
    for _ in range(4):
        await follow(follower, (300, 300, 0.2), (900, 300, 0.1))
    assert [float((w[0] + w[2]) / 2) for w in detector.windows] == [300, 900, 300, 900]


async def test_a_trail_that_stays_doubtful_is_given_up():
    dim = candidates((640, 200, 0.25))  # enough for a trusted trail's next sight, for no other
    detector = ScriptedDetector(*[dim] * 30)
    follower = BallFollower(detector, frame_rate=25)
    for _ in range(8):
        await follow(follower, (640, 200, 0.9))
    found = [await follow(follower) is not None for _ in range(20)]
    assert found[0]
    assert not found[-1]


async def test_where_the_ball_is_expected_less_confidence_is_enough():
    weak = candidates((104, 100, 0.2))
    assert await follow(BallFollower(ScriptedDetector(weak), frame_rate=25)) is None
    ball = await follow(await trusted(ScriptedDetector(weak)))
    assert ball is not None
    assert ball.confidence == np.float32(0.2)


async def test_a_hint_without_the_closer_look_is_trusted_less():
    assert await follow(BallFollower(ScriptedDetector(), frame_rate=25), (100, 100, 0.45)) is None
    assert (
        await follow(BallFollower(ScriptedDetector(candidates((100, 100, 0.45))), frame_rate=25))
        is not None
    )


async def test_motion_is_followed_through_a_gap():
    follower = BallFollower(ScriptedDetector(), frame_rate=25)
    for x in (100, 140, 180):
        await follow(follower, (x, 100, 0.9))
    await follow(follower)
    ball = await follow(follower, (260, 100, 0.4), (130, 100, 0.45))
    assert ball is not None
    assert ball.xyxy[0] == 256


async def test_after_a_long_absence_the_old_place_does_not_count():
    follower = BallFollower(ScriptedDetector(), frame_rate=25)
    await follow(follower, (100, 100, 0.9))
    for _ in range(16):
        await follow(follower)
    ball = await follow(follower, (1000, 500, 0.5), (100, 100, 0.4))
    assert ball is not None
    assert ball.xyxy[0] == 996


async def test_the_closer_look_goes_where_the_ball_was_going():
    detector = ScriptedDetector()
    follower = BallFollower(detector, frame_rate=25)
    for x in (400, 440):
        await follow(follower, (x, 300, 0.9))
    await follow(follower)
    x0, y0, x1, y1 = detector.windows[-1]
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == (480, 300)
    assert x1 - x0 == y1 - y0 == 360


async def test_a_ball_seen_only_closely_is_found():
    detector = ScriptedDetector(candidates((640, 350, 0.8)))
    ball = await follow(BallFollower(detector, frame_rate=25), (630, 350, 0.12))
    assert ball is not None
    assert ball.confidence == np.float32(0.8)
    x0, y0, x1, y1 = detector.windows[0]
    assert x0 < 630 < x1
    assert y0 < 350 < y1


async def test_the_search_without_any_hint_covers_the_whole_frame():
    detector = ScriptedDetector()
    follower = BallFollower(detector, frame_rate=25)
    covered = np.zeros((HEIGHT, WIDTH), bool)
    for _ in range(15):
        await follow(follower)
        x0, y0, x1, y1 = detector.windows[-1].astype(int)
        covered[y0:y1, x0:x1] = True
    assert covered.all()


async def test_windows_stay_inside_a_frame_higher_than_wide():
    detector = ScriptedDetector()
    follower = BallFollower(detector, frame_rate=25)
    await follower.follow(frame(width=300, height=900), candidates((295, 5, 0.9)))
    x0, y0, x1, y1 = detector.windows[0]
    assert 0 <= x0 < x1 <= 300
    assert 0 <= y0 < y1 <= 900


async def test_windows_are_of_whole_pixels():
    detector = ScriptedDetector()
    await follow(BallFollower(detector, frame_rate=25), (640.3, 300.6, 0.2))
    assert detector.windows[0].tolist() == [460, 121, 820, 481]


async def test_without_the_closer_look_the_hints_decide():
    follower = BallFollower(
        ScriptedDetector(ModelUnavailableError("rfdetr_detector", "gone")), frame_rate=25
    )
    ball, is_missing = await follower.follow(frame(), candidates((100, 100, 0.9)))
    assert ball is not None
    assert is_missing


async def test_a_trusted_trail_is_looked_at_whatever_is_hinted_elsewhere():
    detector = ScriptedDetector(*[candidates((100, 100, 0.9))] * 4)
    follower = await trusted(detector)
    for _ in range(4):
        await follow(follower, (900, 500, 0.2))
    assert {tuple(window.tolist()) for window in detector.windows[-4:]} == {(0, 0, 360, 360)}


async def test_a_jump_to_another_ball_is_no_flight():
    detector = ScriptedDetector(candidates((100, 300, 0.4)), candidates((800, 300, 0.8)))
    follower = BallFollower(detector, frame_rate=25)
    for _ in range(3):
        await follow(follower)
    assert detector.windows[-1].tolist() == [620, 120, 980, 480]


async def test_a_ball_goes_farther_from_frame_to_frame_where_frames_are_fewer():
    follower = BallFollower(ScriptedDetector(), frame_rate=5)
    for _ in range(8):
        await follow(follower, (400, 300, 0.9))
    ball = await follow(follower, (500, 300, 0.5), (900, 100, 0.8))
    assert ball is not None
    assert ball.xyxy[0] == 496


@pytest.mark.parametrize(("frame_rate", "misses"), [(5, 4), (25, 16), (60, 37)])
async def test_an_old_place_is_forgotten_by_time_and_not_by_frames(frame_rate, misses):
    detector = ScriptedDetector()
    follower = BallFollower(detector, frame_rate=frame_rate)
    await follow(follower, (640, 200, 0.9))
    for _ in range(misses + 1):
        await follow(follower)
    is_at_the_place = [window.tolist() == [460, 20, 820, 380] for window in detector.windows[1:]]
    assert is_at_the_place == [True] * misses + [False]


async def test_lost_frames_count_for_what_the_ball_flies_and_for_what_is_remembered():
    detector = ScriptedDetector()
    follower = BallFollower(detector, frame_rate=25)
    for x in (400, 440):
        await follow(follower, (x, 300, 0.9))
    await follower.follow(frame(), candidates((600, 300, 0.9)), elapsed=4)
    assert detector.windows[-1].tolist() == [420, 120, 780, 480]
    await follower.follow(frame(), candidates((640, 300, 0.9)))
    assert detector.windows[-1].tolist() == [460, 120, 820, 480], "40 pixels a frame as before"
    await follower.follow(frame(), NOTHING, elapsed=100)
    assert detector.windows[-1].tolist() == [0, 180, 360, 540], "the search's first place"


async def test_minutes_without_a_ball_leave_no_trace():
    follower = BallFollower(ScriptedDetector(), frame_rate=5)
    for _ in range(600):
        assert await follow(follower) is None
    ball = await follow(follower, (700, 300, 0.9))
    assert ball is not None
    assert ball.confidence == np.float32(0.9) * np.float32(0.6)


async def test_after_a_cut_the_ball_is_looked_for_where_something_hints_at_it():
    detector = ScriptedDetector()
    follower = await trusted(detector)
    follower.forget()
    ball = await follow(follower, (900, 500, 0.6), (110, 100, 0.5))
    assert ball is not None
    assert ball.xyxy[0] == 896
    assert detector.windows[-1].tolist() == [720, 320, 1080, 680]


async def test_a_cut_ends_the_balls_trail_and_nothing_else_does(monkeypatch):
    session = await StreamSession.open(
        StreamConfig("cut", Encoding.JPEG), ScriptedTriton(), Settings()
    )
    forgotten = []
    monkeypatch.setattr(session.state.ball, "forget", lambda: forgotten.append(True))
    told = []
    for index, seed in enumerate((0, 0, 1, 1)):
        pixels = np.random.default_rng(seed).integers(0, 256, (100, 200, 3), np.uint8)
        await session.process_frame(Frame(FrameHeader(index), pixels), Detections.joined())
        told.append(len(forgotten))
    assert told == [0, 0, 1, 1]
    await session.close()
