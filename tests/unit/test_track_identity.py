"""Who is who: people who cross, overlap or stray keep their ids."""

import numpy as np
import pytest

from orchestrator.stages.duplicates import duplicates
from orchestrator.stages.tracklet import Tracklet
from orchestrator.types.detections import Detections
from orchestrator.types.frames import Frame, FrameHeader
from orchestrator.types.tracks import TrackState
from tests.unit.scripted_triton import ScriptedTriton
from tests.unit.tracked_people import LEFT, RIGHT, frame, people, tracker


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


@pytest.mark.parametrize(
    ("hits", "misses", "gone"),
    [
        ((3, 9), (0, 0), {1}),
        ((9, 3), (0, 0), {2}),
        ((9, 9), (0, 0), {2}),
        ((30, 9), (0, 1), {2}),
        ((40, 30), (0, 1), set()),  # long followed, it is likely hidden there
        ((40, 30), (0, 0), {2}),
    ],
)
def test_of_two_tracks_on_one_place_the_better_founded_stays(hits, misses, gone):
    pair = [
        Tracklet(
            i, np.array(LEFT, np.float32), "person", 0.9, hits=hits[i - 1], misses=misses[i - 1]
        )
        for i in (1, 2)
    ]
    ended = [duplicates(pair, 0.8, most_frames=3) for _ in range(3)]
    assert ended == [set(), set(), gone]


def test_a_track_that_comes_out_from_under_another_is_counted_anew():
    one, other = (Tracklet(i, np.array(LEFT, np.float32), "person", 0.9, hits=3) for i in (1, 2))
    for _ in range(4):
        assert duplicates([one, other], 0.8, most_frames=3) == set()
        assert duplicates([one, other], 0.8, most_frames=3) == set()
        other.xyxy += 30
        assert duplicates([one, other], 0.8, most_frames=3) == set()
        other.xyxy -= 30


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


@pytest.mark.parametrize(("score", "goes_on"), [(0.9, True), (0.3, False)])
async def test_in_a_detection_of_two_people_masks_that_are_believed_tell_who_is_where(
    score, goes_on
):
    def walk(object_id, age, box):
        steps = max(0, age - 3) * (-1 if object_id == 1 else 1)
        return box + np.array([2, 0, 2, 0], np.float32) * steps, 0.9 if age < 4 else score

    subject = tracker(ScriptedTriton(move=walk))
    one, other = (60, 10, 80, 60), (74, 22, 94, 72)
    for index in range(4):
        await subject.track(frame(index), people(one, other))
    for index in range(4, 7):
        tracks = await subject.track(frame(index), people((54, 10, 100, 72)))
    places = {t.object_id: float(t.xyxy[0]) for t in tracks.seen}
    assert places == ({1: 54, 2: 80} if goes_on else {1: 60, 2: 74})


async def test_who_is_hidden_in_a_crossing_comes_out_with_the_same_id():
    blind = ScriptedTriton(move=lambda i, age, box: (np.zeros(4, np.float32), 0.0))
    subject = tracker(blind)
    for index in range(26):
        one, other = 20 + 4 * index, 120 - 4 * index
        found = [(one, 10, one + 20, 60), (other, 10, other + 20, 60)]
        hidden = abs(one - other) < 16
        tracks = await subject.track(frame(index), people(*(found[:1] if hidden else found)))
    assert {t.object_id: float(t.xyxy[0]) for t in tracks.seen} == {1: 120, 2: 20}


async def test_who_is_hidden_by_somebody_is_awaited_for_longer():
    blind = ScriptedTriton(move=lambda i, age, box: (np.zeros(4, np.float32), 0.0))
    subject = tracker(blind, coast_s=0.5)
    hidden = (74, 10, 94, 60)
    for index in range(9):
        await subject.track(frame(index), people((60 + index, 10, 80 + index, 60), hidden))
    ended = [
        (await subject.track(frame(index), people((68, 10, 88, 60)))).ended
        for index in range(9, 21)
    ]
    assert ended == [()] * 10 + [(2,), ()]


async def test_two_trackers_do_not_share_ids():
    triton = ScriptedTriton()
    one, two = tracker(triton), tracker(triton)
    await one.track(frame(), people(LEFT, RIGHT))
    tracks = await two.track(frame(), people(LEFT))
    assert [t.object_id for t in tracks.seen] == [1]


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
