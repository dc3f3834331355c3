"""A track's life: how it is born, confirmed, reported and ended."""

from dataclasses import replace

import numpy as np
import pytest

from orchestrator.contracts import SAM2_TRACKER
from orchestrator.types.tracks import TrackState
from tests.unit.scripted_triton import ScriptedTriton
from tests.unit.tracked_people import LEFT, NOBODY, RIGHT, frame, people, tracker


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


@pytest.mark.parametrize("place", [LEFT, (10, 45, 30, 95)])
async def test_an_undetected_person_coasts_on_its_mask(place):
    subject = tracker(ScriptedTriton())
    for index in range(3):
        await subject.track(frame(index), people(place))
    (track,) = (await subject.track(frame(3), NOBODY)).seen
    assert track.state is TrackState.COASTING
    assert track.label is None
    assert np.allclose(track.xyxy, place)


async def test_an_undetected_person_is_where_its_mask_goes():
    def walk(object_id, age, box):
        return box + np.float32(6 * max(0, age - 2)) * np.array([1, 0, 1, 0], np.float32), 0.9

    subject = tracker(ScriptedTriton(move=walk))
    for index in range(3):
        await subject.track(frame(index), people(LEFT))
    places = [(await subject.track(frame(i), NOBODY)).seen[0].xyxy[0] for i in range(3, 6)]
    assert places == [16, 22, 28]


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


async def test_two_detections_of_one_person_in_the_first_frame_give_one_birth_of_the_surer():
    found = replace(people((11, 12, 29, 40), LEFT), confidence=np.array([0.6, 0.9], np.float32))
    tracks = await tracker(ScriptedTriton()).track(frame(), found)
    assert [t.xyxy.tolist() for t in tracks.seen] == [list(LEFT)]


async def test_closing_ends_the_sequence_once():
    triton = ScriptedTriton()
    subject = tracker(triton)
    await subject.track(frame(), people(LEFT))
    await subject.close()
    await subject.close()
    ends = [step for name, _, step in triton.calls if name == SAM2_TRACKER.name and step.is_end]
    assert len(ends) == 1


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
