"""Tracks go on when SAM2 loses its memory, is away, or is left out for want of time."""

import numpy as np
import pytest

from orchestrator.errors import ModelOverloadedError, ModelUnavailableError, SequenceLostError
from orchestrator.stages import track
from orchestrator.types.frames import Frame, FrameHeader
from tests.unit.scripted_triton import ScriptedTriton
from tests.unit.tracked_people import LEFT, RIGHT, frame, people, tracker

DRESSED = track.dressed


def lit_frame(index: int) -> Frame:
    return Frame(FrameHeader(index), np.full((100, 200, 3), index, np.uint8))


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


@pytest.mark.parametrize(("max_observed", "looks"), [(None, 0), (0, 2)])
async def test_clothes_are_not_looked_at_where_time_is_too_short_for_sam2(
    max_observed, looks, monkeypatch
):
    seen = []
    monkeypatch.setattr(track, "dressed", lambda *given: seen.append(given) or DRESSED(*given))
    subject = tracker(ScriptedTriton())
    for index in range(2):
        tracks = await subject.track(lit_frame(index), people(LEFT), max_observed=max_observed)
    assert [t.object_id for t in tracks.seen] == [1]
    assert len(seen) == looks


async def test_who_was_followed_without_sam2_is_prompted_anew():
    triton = ScriptedTriton()
    subject = tracker(triton)
    await subject.track(lit_frame(0), people(LEFT))
    assert subject.size_bytes == 100 * 200 * 3
    await subject.track(lit_frame(1), people(LEFT), max_observed=None)
    assert subject.size_bytes == 0, "the picture is not wanted any more"
    await subject.track(lit_frame(2), people(LEFT))
    (_, start), (inputs, step) = triton.seen("sam2_tracker")
    assert step.sequence_id == start.sequence_id
    assert inputs["forget_object_ids"].tolist() == inputs["prompt_object_ids"].tolist() == [[1]]


async def test_sam2_is_told_for_how_many_it_has_time():
    triton = ScriptedTriton()
    subject = tracker(triton)
    for most in (0, 5):
        await subject.track(frame(), people(LEFT, RIGHT), max_observed=most)
    (free, _), (tight, _) = triton.seen("sam2_tracker")
    assert "max_observed" not in free
    assert tight["max_observed"].tolist() == [[5]]


async def test_a_sequence_that_had_no_time_for_a_frame_goes_on():
    busy = ModelOverloadedError("sam2_tracker", "full")
    triton = ScriptedTriton(faults={"sam2_tracker": [None, busy]})
    subject = tracker(triton)
    told = [(await subject.track(frame(i), people(LEFT))).is_degraded for i in range(3)]
    assert told == [False, True, False]
    steps = [step for _, step in triton.seen("sam2_tracker")]
    assert [step.is_start for step in steps] == [True, False, False]
    assert len({step.sequence_id for step in steps}) == 1


async def test_a_sequence_that_never_began_for_want_of_time_begins_later():
    busy = ModelOverloadedError("sam2_tracker", "full")
    triton = ScriptedTriton(faults={"sam2_tracker": [busy]})
    subject = tracker(triton)
    for index in range(2):
        await subject.track(frame(index), people(LEFT))
    now, step = triton.seen("sam2_tracker")[-1]
    assert step.is_start
    assert now["prompt_object_ids"].tolist() == [[1]]


@pytest.mark.parametrize("hidden", [{2}, {1, 2, 3}])
async def test_only_who_was_in_sight_is_in_the_rebuilt_sequence(hidden):
    gone = SequenceLostError("sam2_tracker", "gone")
    triton = ScriptedTriton(
        move=lambda i, age, box: (box * (i not in hidden), 0.9),
        faults={"sam2_tracker": [None, None, gone]},
    )
    subject = tracker(triton)
    for index in range(3):
        tracks = await subject.track(lit_frame(index), people(LEFT, (60, 10, 80, 60), RIGHT))
        assert not tracks.is_degraded
        assert [t.object_id for t in tracks.seen] == [1, 2, 3]
    first, *_ = asked = triton.seen("sam2_tracker")[3:]
    shown = sorted({1, 2, 3} - hidden)
    assert first[1].is_start
    replays = [inputs for inputs, _ in asked if "prompt_masks" in inputs]
    assert [inputs["prompt_object_ids"].tolist() for inputs in replays] == [[shown]] * bool(shown)


async def test_who_ended_while_the_sequence_was_lost_is_not_told_to_the_new_one():
    down = ModelUnavailableError("sam2_tracker", "down")
    triton = ScriptedTriton(
        move=lambda i, age, box: (box * (i == 1), 0.9),
        faults={"sam2_tracker": [None, None, down]},
    )
    subject = tracker(triton, coast_s=0.1)
    everybody = people(LEFT, RIGHT), *[people(LEFT)] * 3
    ended = [(await subject.track(frame(), found)).ended for found in everybody]
    assert ended == [(), (), (2,), ()]
    replay, now = (inputs for inputs, _ in triton.seen("sam2_tracker")[3:])
    assert replay["prompt_object_ids"].tolist() == [[1]]
    assert "forget_object_ids" not in now


async def test_the_last_picture_outlives_the_memory_it_came_in():
    triton = ScriptedTriton()
    subject = tracker(triton)
    first = lit_frame(7)
    await subject.track(first, people(LEFT))
    await subject.close()
    first.pixels[:] = 0  # as the memory that a connection shared is used for something else
    await subject.track(lit_frame(8), people(LEFT))
    replay, now = (inputs for inputs, _ in triton.seen("sam2_tracker")[-2:])
    assert (replay["frame"] == 7).all()
    assert (now["frame"] == 8).all()
