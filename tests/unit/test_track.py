"""The tracker's rules, with SAM2 played by a script."""

import numpy as np

from orchestrator.contracts import SAM2_TRACKER
from orchestrator.errors import ModelUnavailableError, SequenceLostError
from orchestrator.settings import TrackSettings
from orchestrator.stages.track import Tracker
from orchestrator.types.detections import Detections
from orchestrator.types.frames import Frame, FrameHeader
from orchestrator.types.tracks import TrackState
from tests.unit.scripted_triton import ScriptedTriton

NOBODY = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), ())


def frame(index: int = 0) -> Frame:
    return Frame(FrameHeader(index), np.zeros((100, 200, 3), np.uint8))


def lit_frame(index: int) -> Frame:
    return Frame(FrameHeader(index), np.full((100, 200, 3), index, np.uint8))


def people(*boxes: tuple[float, ...], confidence: float = 0.9) -> Detections:
    n = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(n, 4),
        np.full(n, confidence, np.float32),
        ("person",) * n,
    )


def tracker(triton: ScriptedTriton, **settings: float) -> Tracker:
    return Tracker(triton, TrackSettings(**settings), frame_rate=10)  # type: ignore[arg-type]


LEFT, RIGHT = (10, 10, 30, 60), (120, 10, 140, 60)


async def test_a_new_detection_prompts_sam2_in_the_same_call():
    triton = ScriptedTriton()
    subject = tracker(triton)
    await subject.track(frame(), people(LEFT))
    tracks = await subject.track(frame(1), people(LEFT, RIGHT))
    (first, start), (second, step) = triton.seen("sam2_tracker")
    assert start.is_start
    assert not step.is_start
    assert first["prompt_object_ids"].tolist() == [[1]]
    assert second["prompt_object_ids"].tolist() == [[2]]
    assert second["prompt_boxes"].tolist() == [[list(RIGHT)]]
    assert [(t.object_id, t.is_new) for t in tracks.seen] == [(1, False), (2, True)]


async def test_no_call_is_made_before_anybody_is_seen():
    triton = ScriptedTriton()
    tracks = await tracker(triton).track(frame(), NOBODY)
    assert tracks.seen == ()
    assert triton.calls == []


async def test_a_track_is_tentative_until_it_was_detected_often_enough():
    subject = tracker(ScriptedTriton(), confirm_frames=3)
    states = [(await subject.track(frame(i), people(LEFT))).seen[0].state for i in range(4)]
    assert states == [TrackState.TENTATIVE] * 2 + [TrackState.CONFIRMED] * 2


async def test_a_weak_detection_starts_no_track():
    tracks = await tracker(ScriptedTriton()).track(frame(), people(LEFT, confidence=0.45))
    assert tracks.seen == ()


async def test_a_second_box_on_the_same_person_starts_no_track():
    subject = tracker(ScriptedTriton())
    await subject.track(frame(), people(LEFT))
    tracks = await subject.track(frame(1), people(LEFT, (12, 10, 31, 58)))
    assert [t.object_id for t in tracks.seen] == [1]


async def test_masks_carry_ids_through_a_crossing():
    def walk(object_id, age, box):
        step = 5 if object_id == 1 else -5
        return box + np.array([step, 0, step, 0], np.float32) * age, 0.95

    subject = tracker(ScriptedTriton(move=walk))
    for age in range(20):
        one, two = 10 + 5 * age, 105 - 5 * age
        boxes = [(one, 10, one + 20, 60), (two, 10, two + 20, 60)]
        hidden = abs(one - two) < 8  # behind each other: one detection for both
        found = people(*(boxes[:1] if hidden else boxes[:: 1 if age % 3 == 0 else -1]))
        tracks = await subject.track(frame(age), found)
    assert {t.object_id: float(t.xyxy[0]) for t in tracks.seen} == {1: 105.0, 2: 10.0}


async def test_a_detection_that_a_mask_explains_starts_no_track():
    jump = np.array([30, 0, 30, 0], np.float32)
    triton = ScriptedTriton(move=lambda i, age, box: (box + jump * (i == 1 and age >= 4), 0.9))
    subject = tracker(triton)
    for index in range(4):
        await subject.track(frame(index), people(LEFT))
    moved = tuple(np.array(LEFT) + jump)
    tracks = await subject.track(frame(4), people(moved))
    assert [t.object_id for t in tracks.seen] == [1]
    assert tracks.ended == (2,)
    await subject.track(frame(5), people(moved))
    assert triton.seen("sam2_tracker")[-1][0]["forget_object_ids"].tolist() == [[2]]


async def test_whoever_enters_while_the_camera_pans_keeps_one_id():
    def pan(object_id, age, box):
        return box + np.array([15, 0, 15, 0], np.float32) * age, 0.9

    scene = np.random.default_rng(0).integers(0, 256, (25, 100, 3), np.uint8).repeat(4, 0)
    scene = scene.repeat(4, 1)
    subject = tracker(ScriptedTriton(move=pan))
    for index in range(9):
        view = Frame(FrameHeader(index), scene[:, 150 - 15 * index :][:, :200].copy())
        known = [(10 + 15 * index + x, 10, 20 + 15 * index + x, 60) for x in (0, 40)]
        late = [(15 * (index - 5), 10, 10 + 15 * (index - 5), 60)] if index >= 5 else []
        tracks = await subject.track(view, people(*known, *late))
    assert [t.object_id for t in tracks.seen] == [1, 2, 3]


async def test_an_undetected_person_coasts_on_its_mask():
    subject = tracker(ScriptedTriton())
    for index in range(3):
        await subject.track(frame(index), people(LEFT))
    (track,) = (await subject.track(frame(3), NOBODY)).seen
    assert track.state is TrackState.COASTING
    assert track.label is None
    assert np.allclose(track.xyxy, LEFT)


async def test_without_mask_and_detection_a_person_is_not_reported_and_ends_in_time():
    triton = ScriptedTriton(move=lambda i, age, box: (box * 0, 0.0))
    subject = tracker(triton, coast_s=0.5)
    for index in range(3):
        await subject.track(frame(index), people(LEFT))
    ended = []
    for index in range(3, 10):
        tracks = await subject.track(frame(index), NOBODY)
        assert tracks.seen == ()
        ended.append(tracks.ended)
    assert ended == [()] * 5 + [(1,), ()]
    await subject.track(frame(10), people(LEFT))
    assert triton.seen("sam2_tracker")[-1][0]["forget_object_ids"].tolist() == [[1]]


async def test_whoever_leaves_the_picture_ends():
    def walk(object_id, age, box):
        return box - np.array([12, 0, 12, 0], np.float32) * age, 0.9

    subject = tracker(ScriptedTriton(move=walk))
    for index in range(3):
        x = 24 - 12 * index
        await subject.track(frame(index), people((x - 14, 10, x + 6, 60)))
    ended = [i for index in range(3, 6) for i in (await subject.track(frame(index), NOBODY)).ended]
    assert ended == [1]


async def test_a_lost_sequence_is_rebuilt_from_the_last_masks_and_ids_go_on():
    triton = ScriptedTriton(
        faults={"sam2_tracker": [None, SequenceLostError("sam2_tracker", "gone"), None]}
    )
    subject = tracker(triton)
    await subject.track(lit_frame(0), people(LEFT, RIGHT))
    back = await subject.track(lit_frame(1), people(LEFT, RIGHT))
    assert not back.is_degraded
    assert [(t.object_id, t.mask is not None) for t in back.seen] == [(1, True), (2, True)]
    _, _, (replay, start), (now, step) = triton.seen("sam2_tracker")
    assert start.is_start
    assert (replay["frame"] == 0).all()
    assert replay["prompt_object_ids"].tolist() == [[1, 2]]
    assert replay["prompt_masks"].tolist() == [[b"RLE", b"RLE"]]
    assert not step.is_start
    assert (now["frame"] == 1).all()
    assert "prompt_object_ids" not in now
    assert step.sequence_id == start.sequence_id != triton.seen("sam2_tracker")[0][1].sequence_id


async def test_a_sequence_lost_in_an_outage_is_rebuilt_when_it_is_over():
    down = ModelUnavailableError("sam2_tracker", "down")
    triton = ScriptedTriton(faults={"sam2_tracker": [None, down]})
    subject = tracker(triton)
    outage = [
        (await subject.track(lit_frame(i), people(LEFT, RIGHT))).is_degraded for i in range(3)
    ]
    assert outage == [False, True, False]
    (replay, start), (now, _) = triton.seen("sam2_tracker")[2:]
    assert start.is_start
    assert (replay["frame"] == 0).all()
    assert (now["frame"] == 2).all()


async def test_after_a_long_outage_everybody_is_prompted_where_they_are_detected():
    down = ModelUnavailableError("sam2_tracker", "down")
    triton = ScriptedTriton(faults={"sam2_tracker": [None, down, down, down]})
    subject = tracker(triton)
    for index in range(5):
        tracks = await subject.track(lit_frame(index), people(LEFT, RIGHT))
    assert [t.object_id for t in tracks.seen] == [1, 2]
    now, start = triton.seen("sam2_tracker")[-1]
    assert start.is_start
    assert now["prompt_object_ids"].tolist() == [[1, 2]]
    assert now["prompt_boxes"].tolist() == [[list(LEFT), list(RIGHT)]]


async def test_without_sam2_tracks_live_on_detections():
    down = ModelUnavailableError("sam2_tracker", "down")
    subject = tracker(ScriptedTriton(faults={"sam2_tracker": [down] * 5}))
    for index in range(5):
        box = (10 + 2 * index, 10, 30 + 2 * index, 60)
        tracks = await subject.track(frame(index), people(box))
        assert tracks.is_degraded
        assert [t.object_id for t in tracks.seen] == [1]
        assert tracks.seen[0].mask is None


async def test_a_mask_that_left_its_person_is_corrected_by_a_prompt():
    drifted = np.array([150, 60, 180, 95], np.float32)
    triton = ScriptedTriton(move=lambda i, age, box: (box, 0.9) if age < 2 else (drifted, 0.2))
    subject = tracker(triton)
    for index in range(16):
        await subject.track(frame(index), people(LEFT))
    prompts = [
        index
        for index, (inputs, _) in enumerate(triton.seen("sam2_tracker"))
        if "prompt_object_ids" in inputs
    ]
    assert prompts == [0, 13]


async def test_two_tracks_on_one_person_become_one():
    def merge(object_id, age, box):
        return (box, 0.9) if object_id == 1 or age < 3 else (np.array(LEFT, np.float32), 0.9)

    subject = tracker(ScriptedTriton(move=merge))
    for index in range(3):
        await subject.track(frame(index), people(LEFT, (60, 10, 80, 60)))
    ended = []
    for index in range(3, 14):
        tracks = await subject.track(frame(index), people(LEFT))
        ended += tracks.ended
        # the two do not take turns at the one detection
        assert [(t.object_id, t.state) for t in tracks.seen] == [(1, TrackState.CONFIRMED)]
    assert ended == [2]


async def test_a_mask_that_strays_to_somebody_else_is_called_off():
    def stray(object_id, age, box):
        return (np.array(LEFT, np.float32) if object_id == 2 and age >= 3 else box), 0.9

    triton = ScriptedTriton(move=stray)
    subject = tracker(triton)
    for index in range(3):
        await subject.track(frame(index), people(LEFT, RIGHT))
    for index in range(3, 5):
        await subject.track(frame(index), people(LEFT))
    assert triton.seen("sam2_tracker")[-1][0]["forget_object_ids"].tolist() == [[2]]
    back = await subject.track(frame(5), people(LEFT, RIGHT))
    assert [t.object_id for t in back.seen] == [1, 2]
    assert triton.seen("sam2_tracker")[-1][0]["prompt_object_ids"].tolist() == [[2]]


async def test_one_detection_of_two_people_keeps_both():
    subject = tracker(ScriptedTriton())
    one, other = (60, 10, 80, 60), (74, 22, 94, 72)
    for index in range(4):
        await subject.track(frame(index), people(one, other))
    for index in range(4, 12):
        tracks = await subject.track(frame(index), people((60, 10, 94, 72)))
        boxes = {t.object_id: t.xyxy.tolist() for t in tracks.seen}
        assert boxes == {1: list(one), 2: list(other)}


async def test_two_detections_of_one_person_in_the_first_frame_give_one_birth():
    found = people(LEFT, (11, 12, 29, 40))
    tracks = await tracker(ScriptedTriton()).track(frame(), found)
    assert [t.xyxy.tolist() for t in tracks.seen] == [list(LEFT)]


async def test_who_is_hidden_in_a_crossing_comes_out_with_the_same_id():
    blind = ScriptedTriton(move=lambda i, age, box: (np.zeros(4, np.float32), 0.0))
    subject = tracker(blind)
    for index in range(26):
        one, other = 20 + 4 * index, 120 - 4 * index
        found = [(one, 10, one + 20, 60), (other, 10, other + 20, 60)]
        hidden = abs(one - other) < 16
        tracks = await subject.track(frame(index), people(*(found[:1] if hidden else found)))
    assert {t.object_id: float(t.xyxy[0]) for t in tracks.seen} == {1: 120, 2: 20}


async def test_closing_ends_the_sequence_once():
    triton = ScriptedTriton()
    subject = tracker(triton)
    await subject.track(frame(), people(LEFT))
    await subject.close()
    await subject.close()
    ends = [step for name, _, step in triton.calls if name == SAM2_TRACKER.name and step.is_end]
    assert len(ends) == 1


async def test_two_trackers_do_not_share_ids():
    triton = ScriptedTriton()
    one, two = tracker(triton), tracker(triton)
    await one.track(frame(), people(LEFT, RIGHT))
    tracks = await two.track(frame(), people(LEFT))
    assert [t.object_id for t in tracks.seen] == [1]


def picture(index: int, seed: int) -> Frame:
    pixels = np.random.default_rng(seed).integers(0, 256, (100, 200, 3), np.uint8)
    return Frame(FrameHeader(index), pixels)


def row_of_people(first_x: int, count: int = 6) -> Detections:
    return people(*((x, 10, x + 8, 60) for x in range(first_x, first_x + 20 * count, 20)))


async def test_a_cut_ends_every_track_and_starts_anew():
    triton = ScriptedTriton()
    subject = tracker(triton)
    for index in range(4):
        await subject.track(picture(index, seed=0), row_of_people(0))
    tracks = await subject.track(picture(4, seed=1), row_of_people(10))
    assert tracks.is_cut
    assert tracks.ended == (1, 2, 3, 4, 5, 6)
    assert [t.object_id for t in tracks.seen] == [7, 8, 9, 10, 11, 12]
    inputs, step = triton.seen("sam2_tracker")[-1]
    assert not step.is_start
    assert inputs["forget_object_ids"].tolist() == [[1, 2, 3, 4, 5, 6]]


async def test_with_nobody_followed_the_picture_alone_tells_a_cut():
    subject = tracker(ScriptedTriton())
    views = [picture(0, seed=0), picture(1, seed=0), picture(2, seed=1), picture(3, seed=1)]
    tracks = [await subject.track(view, NOBODY) for view in views]
    assert [t.is_cut for t in tracks] == [False, False, True, False]


async def test_people_who_all_leave_in_an_unbroken_picture_are_no_cut():
    subject = tracker(ScriptedTriton())
    for index in range(4):
        await subject.track(picture(index, seed=0), row_of_people(0))
    tracks = await subject.track(picture(4, seed=0), row_of_people(10))
    assert not tracks.is_cut


async def test_a_new_picture_of_the_same_people_is_no_cut():
    subject = tracker(ScriptedTriton())
    for index in range(4):
        await subject.track(picture(index, seed=0), row_of_people(0))
    tracks = await subject.track(picture(4, seed=1), row_of_people(1))
    assert not tracks.is_cut
    assert [t.object_id for t in tracks.seen] == [1, 2, 3, 4, 5, 6]


async def test_the_box_holds_detection_and_mask_where_they_agree_and_leans_on_the_mask():
    shifted = ScriptedTriton(move=lambda i, age, box: (box + np.float32(4), 0.9))
    tracks = await tracker(shifted).track(frame(), people(LEFT))
    assert tracks.seen[0].xyxy.tolist() == [11, 11, 34, 64]


async def test_a_mask_elsewhere_does_not_pull_the_box():
    astray = ScriptedTriton(move=lambda i, age, box: (box + np.float32(15), 0.9))
    tracks = await tracker(astray).track(frame(), people(LEFT))
    assert tracks.seen[0].xyxy.tolist() == list(LEFT)


async def test_a_mask_alone_vouches_for_a_person_only_briefly():
    subject = tracker(ScriptedTriton(), coast_s=2.0, mask_only_s=0.2)
    for index in range(5):
        await subject.track(frame(index), people(LEFT))
    reported = [len((await subject.track(frame(5 + i), NOBODY)).seen) for i in range(4)]
    assert reported == [1, 1, 0, 0]
    back = await subject.track(frame(9), people(LEFT))
    assert [t.object_id for t in back.seen] == [1]


async def test_a_mask_that_is_only_predicted_vouches_for_nobody():
    triton = ScriptedTriton()
    subject = tracker(triton, coast_s=2.0, mask_only_s=0.2)
    for index in range(5):
        (seen,) = (await subject.track(frame(index), people(LEFT))).seen
        assert seen.mask is not None
        assert not seen.mask.is_predicted
    triton.observes = False
    (seen,) = (await subject.track(frame(5), people(LEFT))).seen
    assert seen.mask is not None
    assert seen.mask.is_predicted
    assert not (await subject.track(frame(6), NOBODY)).seen


def dressed(index: int, red_x: int, blue_x: int) -> tuple[Frame, Detections]:
    """Somebody in red, and nearer to the camera somebody in blue."""
    pixels = np.random.default_rng(0).integers(0, 90, (100, 200, 3), np.uint8)  # holds the camera
    pixels[18:36, red_x + 5 : red_x + 35] = (200, 30, 30)
    pixels[38:56, blue_x + 5 : blue_x + 35] = (30, 60, 200)
    boxes = (red_x, 10, red_x + 40, 60), (blue_x, 30, blue_x + 40, 80)
    return Frame(FrameHeader(index), pixels), people(*boxes)


async def test_rivals_who_cross_keep_their_ids_by_their_shirts():
    blind = ScriptedTriton(move=lambda i, age, box: (np.zeros(4, np.float32), 0.0))
    subject = tracker(blind)
    for index in range(4):
        await subject.track(*dressed(index, 40, 60))
    tracks = await subject.track(*dressed(4, 66, 34))
    assert {t.object_id: float(t.xyxy[0]) for t in tracks.seen} == {1: 66, 2: 34}
