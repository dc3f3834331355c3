"""Detections and masks are told apart by place and by clothes."""

import numpy as np

from orchestrator.stages import association
from orchestrator.stages.appearance import clothes
from orchestrator.stages.association import associate, expected_rows, shown_alike
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
            track.wear(clothes(picture((box, colour)), track.xyxy[None], 1.0)[0])
        tracks.append(track)
    return tracks


def mask(box):
    return Segment(np.array(box, np.float32), 0.9, Mask(100, 200, ""))


def on_rivals(pixels, tracks, segments):
    alike = shown_alike(pixels, 1.0, tracks, segments)
    return association.on_rivals(tracks, segments, alike)


def matched(pixels, detected, tracks, segments):
    """Associate detections with tracks whose masks are believed."""
    for track, segment in zip(tracks, segments, strict=True):
        track.support, track.hits = 0.9 * (segment is not None), 9
    alike = shown_alike(pixels, 1.0, tracks, segments)
    worn = clothes(pixels, detected.xyxy, 1.0)
    return associate(detected, worn, tracks, segments, alike, 0.2)


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
    pixels, segments = picture((LEFT, BLUE)), [mask(LEFT), None]
    assert on_rivals(pixels, tracks, segments) == []
    assert np.isnan(shown_alike(pixels, 1.0, tracks, segments)).all(), "not even looked at"


def test_whose_shirt_is_not_known_neither_strays_nor_rivals():
    pixels = picture((RIGHT, BLUE))
    assert on_rivals(pixels, followed((LEFT, None), (RIGHT, BLUE)), [mask(RIGHT), None]) == []
    assert on_rivals(pixels, followed((LEFT, RED), (RIGHT, None)), [mask(RIGHT), None]) == []
    assert on_rivals(pixels, [], []) == []


def test_of_two_who_expect_a_detection_the_shirt_decides():
    tracks = followed((LEFT, RED), ((46, 10, 86, 60), BLUE))
    found = people(LEFT)
    worn = clothes(picture((LEFT, BLUE)), found.xyxy, 1.0)
    assert expected_rows(found, worn, tracks, 0.3) == {1: 0}


def test_nobody_is_lost_by_looking_different_all_at_once():
    found = people(LEFT)
    worn = clothes(picture((LEFT, BLUE)), found.xyxy, 1.0)
    assert expected_rows(found, worn, followed((LEFT, RED)), 0.3) == {0: 0}


def test_a_mask_that_is_hardly_believed_does_not_overrule_motion():
    other = (54, 10, 94, 60)
    found, (track,) = people(LEFT, other), followed((LEFT, None))
    worn = clothes(picture(), found.xyxy, 1.0)
    track.xyxy, track.hits = np.array((44, 10, 84, 60), np.float32), 5
    alike = shown_alike(picture(), 1.0, [track], [mask(other)])
    for support, row in ((0.4, 0), (0.9, 1)):
        track.support = support
        assert associate(found, worn, [track], [mask(other)], alike, 0.2).row_of == {0: row}


def test_who_is_seen_by_a_mask_does_not_jump_to_somebody_near():
    """Two people are detected as one, and a third comes out of hiding beside them."""
    both, third = (40, 30, 84, 80), (66, 8, 96, 40)
    tracks = followed(((40, 30, 80, 80), None), ((54, 32, 84, 80), None))
    found = matched(picture(), people(both, third), tracks, [mask(both), mask((56, 40, 82, 78))])
    assert found.row_of == {0: 0}
    assert found.shared == {0, 1}


def test_in_plain_sight_nobody_is_somebody_else_nearby_in_other_clothes():
    near_by = (62, 18, 102, 68)
    pixels = picture((near_by, BLUE))
    red, blue = followed((LEFT, RED)), followed((LEFT, BLUE))
    assert matched(pixels, people(near_by), blue, [None]).row_of == {0: 0}
    assert matched(pixels, people(near_by), red, [None]).row_of == {}
    worn = clothes(pixels, np.array([near_by], np.float32), 1.0)
    assert expected_rows(people(near_by), worn, blue, 0.2) == {0: 0}
    assert expected_rows(people(near_by), worn, red, 0.2) == {}


def test_a_mask_in_its_own_clothes_shares_a_detection_and_does_not_stray():
    """The front one's track already takes the detection of both for its own."""
    both, hidden = (40, 10, 90, 70), (72, 22, 90, 69)
    pixels = picture((both, RED), (hidden, BLUE))
    tracks = followed((both, RED), (hidden, BLUE))
    found = matched(pixels, people(both), tracks, [mask((40, 10, 72, 70)), mask(hidden)])
    assert (found.row_of, found.shared, found.strays) == ({0: 0}, {0, 1}, frozenset())
    in_red = matched(picture((both, RED)), people(both), tracks, [mask(both), mask(hidden)])
    assert (in_red.shared, in_red.strays) == (frozenset(), {1})
    on_grass = matched(picture(), people(both), tracks, [mask((40, 10, 72, 70)), mask(hidden)])
    assert (on_grass.shared, on_grass.strays) == (frozenset(), {1})


def test_clothes_that_are_not_known_bring_nobody_nearer():
    expected = followed((LEFT, None))
    for x, rows in ((66, {0: 0}), (96, {})):
        found = people((x, 10, x + 40, 60))
        worn = clothes(picture(), found.xyxy, 1.0)
        assert expected_rows(found, worn, expected, 0.2) == rows


def test_a_detection_in_which_two_may_show_is_crowded():
    tracks = followed((LEFT, None), (RIGHT, None), ((150, 10, 190, 60), None))
    found = matched(picture(), people(LEFT, (150, 10, 190, 60)), tracks, [None] * 3)
    assert found.crowded.tolist() == [True, False]


def test_clothes_are_learnt_anew_as_the_light_changes():
    (track,) = followed((LEFT, RED))
    in_shade = clothes(picture((LEFT, (120, 18, 18))), track.xyxy[None], 1.0)[0]
    for _ in range(60):
        track.wear(in_shade)
    np.testing.assert_allclose(track.clothes, in_shade, atol=0.01)


def test_clothes_out_of_sight_are_not_learnt():
    (track,) = followed((LEFT, RED))
    before = track.clothes.copy()
    at_the_edge = np.array([(0, 10, 40, 60)], np.float32)
    track.wear(clothes(picture(((0, 10, 40, 60), BLUE)), at_the_edge, 1.0)[0])
    np.testing.assert_array_equal(track.clothes, before)
