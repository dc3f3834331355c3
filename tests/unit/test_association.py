"""Detections and masks are told apart by place and by shirt."""

import numpy as np

from orchestrator.stages.appearance import shirts
from orchestrator.stages.association import associate, expected_rows, on_rivals
from orchestrator.stages.segmenting import Segment
from orchestrator.stages.tracklet import Tracklet
from orchestrator.types.pictures import Mask
from tests.unit.tracked_people import people

RED, BLUE = (200, 30, 30), (30, 60, 200)
LEFT, RIGHT = (40, 10, 80, 60), (60, 10, 100, 60)


def picture(*dressed):
    pixels = np.full((100, 200, 3), 60, np.uint8)
    for (x0, y0, x1, y1), colour in dressed:
        pixels[y0:y1, x0:x1] = colour
    return pixels


def followed(*dressed):
    """Tracks of people in these places and shirts."""
    tracks = []
    for object_id, (box, colour) in enumerate(dressed, 1):
        track = Tracklet(object_id, np.array(box, np.float32), "person", 0.9)
        if colour is not None:
            track.wear(shirts(picture((box, colour)), track.xyxy[None])[0])
        tracks.append(track)
    return tracks


def mask(box):
    return Segment(np.array(box, np.float32), 0.9, Mask(100, 200, ""))


def test_a_mask_that_shows_a_rivals_shirt_is_found():
    tracks = followed((LEFT, RED), (RIGHT, BLUE))
    pixels = picture((LEFT, RED), (RIGHT, BLUE))
    assert on_rivals(pixels, tracks, [mask(RIGHT), None]) == [0]
    assert on_rivals(pixels, tracks, [mask(RIGHT), mask(RIGHT)]) == [0]


def test_masks_on_their_own_people_are_left_alone():
    tracks = followed((LEFT, RED), (RIGHT, BLUE))
    pixels = picture((RIGHT, BLUE), (LEFT, RED))
    assert on_rivals(pixels, tracks, [mask(LEFT), mask((70, 10, 100, 60))]) == []


def test_shirts_alike_tell_nothing():
    tracks = followed((LEFT, BLUE), (RIGHT, BLUE))
    assert on_rivals(picture((RIGHT, BLUE)), tracks, [mask(RIGHT), None]) == []


def test_only_who_is_near_is_a_rival():
    tracks = followed((LEFT, RED), ((150, 10, 190, 60), BLUE))
    assert on_rivals(picture((LEFT, BLUE)), tracks, [mask(LEFT), None]) == []


def test_whose_shirt_is_not_known_neither_strays_nor_rivals():
    pixels = picture((RIGHT, BLUE))
    assert on_rivals(pixels, followed((LEFT, None), (RIGHT, BLUE)), [mask(RIGHT), None]) == []
    assert on_rivals(pixels, followed((LEFT, RED), (RIGHT, None)), [mask(RIGHT), None]) == []
    assert on_rivals(pixels, [], []) == []


def test_of_two_who_expect_a_detection_the_shirt_decides():
    tracks = followed((LEFT, RED), ((46, 10, 86, 60), BLUE))
    found = people(LEFT)
    worn = shirts(picture((LEFT, BLUE)), found.xyxy)
    assert expected_rows(found, worn, tracks, 0.3) == {1: 0}


def test_nobody_is_lost_by_looking_different_all_at_once():
    found = people(LEFT)
    worn = shirts(picture((LEFT, BLUE)), found.xyxy)
    assert expected_rows(found, worn, followed((LEFT, RED)), 0.3) == {0: 0}


def test_a_mask_that_is_hardly_believed_does_not_overrule_motion():
    other = (54, 10, 94, 60)
    found, (track,) = people(LEFT, other), followed((LEFT, None))
    worn = shirts(picture(), found.xyxy)
    track.xyxy, track.hits = np.array((44, 10, 84, 60), np.float32), 5
    for support, row in ((0.4, 0), (0.9, 1)):
        track.support = support
        assert associate(found, worn, [track], [mask(other)], 0.2).row_of == {0: row}
