"""Tracks go on when SAM2 loses its memory, is away, or is left out for want of time."""

import numpy as np
import pytest

from orchestrator.errors import ModelUnavailableError, SequenceLostError
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
