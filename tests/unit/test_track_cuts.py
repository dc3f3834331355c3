"""Camera cuts end all tracks, and nothing else is taken for a cut."""

import numpy as np
import pytest

from orchestrator.types.detections import Detections
from orchestrator.types.frames import Frame, FrameHeader
from tests.unit.scripted_triton import ScriptedTriton
from tests.unit.tracked_people import NOBODY, people, tracker


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


@pytest.mark.parametrize("frames", [(0, 1, 2), (3,)], ids=["hidden", "newborn"])
async def test_only_who_is_well_founded_and_in_sight_tells_a_cut(frames):
    """Ten others are not there in the new picture, of whom the old one told little."""
    blind = ScriptedTriton(move=lambda i, age, box: (box * 0, 0.0))
    subject = tracker(blind)
    boxes = [(x, 10, x + 8, 60) for x in range(0, 180, 12)]
    for index in range(4):
        found = boxes if index in frames else boxes[:5]
        await subject.track(picture(index, seed=0), people(*found))
    tracks = await subject.track(picture(4, seed=1), people(*boxes[:5]))
    assert not tracks.is_cut
    assert [t.object_id for t in tracks.seen] == [1, 2, 3, 4, 5]
