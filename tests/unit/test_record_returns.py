"""People who were lost are found again by place, looks or number, or are told apart."""

import numpy as np
import pytest

from orchestrator.settings import IdentifySettings
from orchestrator.types.tracks import Track, TrackState
from tests.unit.recorded_match import KIT, Match, pan, reading, track


def test_a_lost_person_who_returns_nearby_and_alike_keeps_the_id():
    match = Match()
    match.frame(track(1, 100), embeddings={1: KIT[0]})
    match.frame(ended=(1,))
    players, _ = match.frame(track(2, 110, is_new=True), embeddings={2: KIT[0]})
    assert list(players) == [1]


@pytest.mark.parametrize(("before", "after"), [({}, {2: KIT[0]}), ({1: KIT[0]}, {})])
def test_whose_looks_are_not_known_is_somebody_new(before, after):
    match = Match()
    match.frame(track(1, 100), embeddings=before)
    match.frame(ended=(1,))
    players, _ = match.frame(track(2, 110, is_new=True), embeddings=after)
    assert list(players) == [2]


@pytest.mark.parametrize(("longest_s", "expected"), [(1.0, [1]), (0.9, [2]), (0.0, [2])])
def test_who_was_lost_for_longer_than_is_set_is_not_found_again_by_looks(longest_s, expected):
    match = Match(IdentifySettings(reidentify_s=longest_s))
    match.frame(track(1, 100), embeddings={1: KIT[0]})
    match.frame(ended=(1,))
    for _ in range(8):
        match.frame()
    players, _ = match.frame(track(2, 110, is_new=True), embeddings={2: KIT[0]})
    assert list(players) == expected


def test_a_lost_person_is_looked_for_where_it_was_seen_last():
    match = Match()
    for x in range(100, 700, 20):
        match.frame(track(1, x), embeddings={1: KIT[0]})
    match.frame(ended=(1,))
    here, there = track(2, 690, is_new=True), track(3, 100, is_new=True)
    players, _ = match.frame(here, there, embeddings={2: KIT[0], 3: KIT[0]})
    assert {i: match.ledger._people[i].object_id for i in players} == {1: 2, 2: 3}


@pytest.mark.parametrize(("x", "kit"), [(110, 1), (900, 0)])
def test_somebody_else_or_too_far_away_gets_a_new_id(x, kit):
    match = Match()
    match.frame(track(1, 100), embeddings={1: KIT[0]})
    match.frame(ended=(1,))
    players, _ = match.frame(track(2, x, is_new=True), embeddings={2: KIT[kit]})
    assert list(players) == [2]


def test_the_lost_are_looked_for_where_the_camera_has_left_them():
    match = Match()
    match.frame(track(1, 10), track(2, 300), embeddings={1: KIT[0], 2: KIT[0]})
    match.frame(ended=(1, 2), shift=pan(-150))
    match.frame(shift=pan(-140))
    seen, _ = match.frame(track(3, 12), embeddings={3: KIT[0]})
    assert list(seen) == [2]


def test_who_comes_back_at_the_edge_is_known_by_place_rather_than_by_half_a_shirt():
    match = Match()
    match.frame(track(1, 0), track(2, 80), embeddings={1: KIT[0], 2: KIT[1]})
    match.frame(ended=(1, 2))
    seen, _ = match.frame(track(3, 4, is_cut_off=True), embeddings={3: KIT[1]})
    assert list(seen) == [1]


def test_half_a_body_at_the_edge_must_be_nearer_than_a_whole_one():
    for is_cut_off, expected in ((False, [1]), (True, [2])):
        match = Match()
        match.frame(track(1, 100), embeddings={1: KIT[0]})
        match.frame(ended=(1,))
        seen, _ = match.frame(track(2, 160, is_cut_off=is_cut_off), embeddings={2: KIT[0]})
        assert list(seen) == expected


def numbered(match: Match):
    """Two sides, of which object 3 wears number 10 until a cut."""
    _, tracks, kits = match.two_sides()
    for _ in range(4):
        match.frame(*tracks, embeddings=kits, readings={3: reading(10)})
    return tuple(track.object_id for track in tracks)


def after_the_cut(**looks):
    match = Match()
    ended = numbered(match)
    seen, updates = match.frame(track(7, 900), ended=ended, is_cut=True, **looks)
    assert [u for u in updates if u.merged_into_track_id] == []
    return list(seen)


def test_who_is_read_at_first_sight_after_a_cut_keeps_the_id():
    assert after_the_cut(embeddings={7: KIT[0]}, readings={7: reading(10, 1.0, 0.95)}) == [3]


def test_who_is_still_awaited_is_not_found_by_one_look_at_somebody_new():
    match = Match()
    numbered(match)
    looks, read = {7: KIT[0]}, {7: reading(10, 1.0, 0.95)}
    seen, _ = match.frame(track(7, 900), embeddings=looks, readings=read)
    assert list(seen) == [7]


@pytest.mark.parametrize(
    ("kit", "read"),
    [
        (1, reading(10, 1.0, 0.95)),  # of the other side
        (0, reading(11, 1.0, 0.95)),
        (0, reading(10, 0.9, 0.9)),  # not sure enough
        (2, reading(10, 1.0, 0.95)),  # of neither side
    ],
)
def test_one_look_that_does_not_tell_all_names_nobody(kit, read):
    assert after_the_cut(embeddings={7: KIT[kit]}, readings={7: read}) == [7]
    assert after_the_cut(readings={7: read}) == [7]


def test_of_two_who_show_a_lost_number_at_first_sight_one_is_known():
    match = Match()
    ended = numbered(match)
    both = {i: reading(10, 1.0, 0.95) for i in (7, 8)}
    kits = {7: KIT[0], 8: KIT[0]}
    new = track(7, 900), track(8, 700)
    seen, _ = match.frame(*new, ended=ended, is_cut=True, embeddings=kits, readings=both)
    assert list(seen) == [3, 7]


def test_a_number_that_somebody_in_sight_wears_brings_nobody_back():
    match = Match()
    numbered(match)
    match.frame(track(3, 180), ended=(1, 2, 4, 5, 6))
    seen, _ = match.frame(
        track(3, 180), track(7, 900), embeddings={7: KIT[0]}, readings={7: reading(10, 1.0, 0.95)}
    )
    assert list(seen) == [3, 7]


def test_two_who_come_back_together_are_told_apart_by_place():
    match = Match()
    match.frame(track(1, 0), track(2, 30), embeddings={1: KIT[0], 2: KIT[0]})
    match.frame(ended=(1, 2))
    returned = track(3, 28), track(4, 8)
    seen, _ = match.frame(*returned, embeddings={3: KIT[0], 4: KIT[0]})
    assert {i: match.ledger._people[i].object_id for i in seen} == {1: 4, 2: 3}


def test_half_a_body_at_the_edge_does_not_shorten_a_reach():
    match = Match()
    match.frame(track(1, 0), embeddings={1: KIT[0]})
    sliver = Track(
        1, np.array([0, 56, 20, 60], np.float32), 0.9, TrackState.CONFIRMED, "person", None, False
    )
    match.frame(sliver)
    match.frame(ended=(1,))
    seen, _ = match.frame(track(2, 10), embeddings={2: KIT[0]})
    assert list(seen) == [1]


def test_a_new_track_of_somebody_still_awaited_keeps_the_id():
    match = Match()
    match.frame(track(1, 100), embeddings={1: KIT[0]})
    match.frame()
    seen, _ = match.frame(track(2, 110), embeddings={2: KIT[0]})
    assert list(seen) == [1]
    # What the old track finds after all is somebody else.
    seen, _ = match.frame(track(2, 110), track(1, 400), embeddings={1: KIT[0]})
    assert {i: match.ledger._people[i].object_id for i in seen} == {1: 2, 2: 1}
    match.frame(track(2, 110), ended=(1,))
    assert [person.is_lost for person in match.ledger.people] == [False, True]


def test_a_person_in_sight_is_never_taken_for_a_returned_one():
    match = Match()
    match.frame(track(1, 100), embeddings={1: KIT[0]})
    players, _ = match.frame(track(1, 100), track(2, 110, is_new=True), embeddings={2: KIT[0]})
    assert list(players) == [1, 2]


def test_a_number_rejoins_two_tracks_of_one_person_aloud():
    match = Match()
    _, tracks, kits = match.two_sides()
    for _ in range(4):
        match.frame(*tracks, embeddings=kits, readings={3: reading(10)})
    rest = [t for t in tracks if t.object_id != 3]
    match.frame(*rest, ended=(3,), embeddings=kits)
    far = track(7, 900, is_new=True)
    merged = []
    for _ in range(8):
        players, updates = match.frame(
            *rest, far, embeddings={7: KIT[0]}, readings={7: reading(10)}
        )
        merged += [(u.track_id, u.merged_into_track_id) for u in updates if u.merged_into_track_id]
    assert merged == [(7, 3)]
    assert 3 in players
    assert 7 not in players
    assert players[3].jersey_number == 10


def test_of_a_person_rejoined_what_both_tracks_told_is_known():
    match = Match()
    ended = numbered(match)
    new = track(7, 900, is_new=True)
    match.frame(new, ended=ended, embeddings={7: KIT[0]})
    while len(match.ledger.people) > 6:
        match.frame(new, embeddings={7: KIT[0]}, readings={7: reading(10)})
    person = next(p for p in match.ledger.people if p.track_id == 3)
    assert (person.first_frame, person.last_frame) == (0, match.count - 1)
    assert person.frame_count == match.count
    # One misread look hardly counts beside all that were taken of either track.
    for _ in range(3):
        seen, _ = match.frame(new, readings={7: reading(4)})
    assert seen[3].jersey_number == 10
    match.frame(ended=(7,))
    seen, _ = match.frame(track(8, 910, is_new=True), embeddings={8: KIT[0]})
    assert list(seen) == [3], "where the newer track left it"


@pytest.mark.parametrize(("before", "after", "is_merged"), [(0.9, 0.65, True), (0.65, 0.65, False)])
def test_a_number_that_both_tracks_say_in_doubt_rejoins_nobody(before, after, is_merged):
    match = Match()
    _, tracks, kits = match.two_sides()
    for _ in range(8):
        match.frame(*tracks, embeddings=kits, readings={3: reading(10, before)})
    rest = [t for t in tracks if t.object_id != 3]
    match.frame(*rest, ended=(3,), embeddings=kits)
    for _ in range(8):
        players, _ = match.frame(
            *rest, track(7, 900), embeddings={7: KIT[0]}, readings={7: reading(10, after)}
        )
    assert (3 in players, 7 in players) == (is_merged, not is_merged)
    assert players[3 if is_merged else 7].jersey_number == (10 if is_merged else None)


def test_a_number_rejoins_two_tracks_even_if_it_was_read_before_the_first_was_given_up():
    match = Match()
    _, tracks, kits = match.two_sides()
    for _ in range(4):
        match.frame(*tracks, embeddings=kits, readings={3: reading(10)})
    seen = [t for t in tracks if t.object_id != 3] + [track(7, 900, is_new=True)]
    for _ in range(8):  # object 3 is hidden, and awaited
        players, _ = match.frame(*seen, embeddings={7: KIT[0]}, readings={7: reading(10)})
    assert players[7].jersey_number == 10
    players, updates = match.frame(*seen, ended=(3,))
    assert [(u.track_id, u.merged_into_track_id) for u in updates] == [(7, 3)]
    assert 7 not in players
    assert match.frame(*seen)[1] == []


def test_people_are_forgotten_before_memory_grows_without_bound():
    match = Match()
    for object_id in range(1, 700):
        match.frame(track(object_id), ended=(object_id - 1,))
    assert len(match.ledger.people) <= 512


def test_who_is_still_awaited_is_not_forgotten_for_others():
    match = Match()
    match.frame(track(1, 5000))
    for object_id in range(2, 700):
        match.frame(track(object_id), ended=(object_id - 1,) if object_id > 2 else ())
    players, _ = match.frame(track(1, 5000))
    assert list(players) == [1]
    assert [person.track_id for person in match.ledger.people][:1] == [1]


def test_of_whoever_may_return_all_is_kept():
    match = Match()
    crowd = [track(i, 60.0 * i) for i in range(1, 301)]
    match.frame(*crowd, embeddings={t.object_id: KIT[t.object_id % 2] for t in crowd})
    match.frame(ended=range(1, 301))
    for _ in range(20):
        match.frame()
    assert all(person.embedding is not None for person in match.ledger.people)


def test_of_those_lost_longest_only_what_was_said_is_kept():
    match = Match()
    _, tracks, kits = match.two_sides()
    match.frame(*tracks, embeddings=kits, readings={1: reading(10), 4: reading(11)})
    said = {p.track_id: p.identity for p in match.ledger.people}
    match.frame(ended=range(1, 7))
    for object_id in range(7, 507):
        looks = {object_id: KIT[object_id % 2]}
        far = track(object_id, 500.0 * (object_id % 41))
        match.frame(far, ended=(object_id - 1,), embeddings=looks)
    people = match.ledger.people
    assert len(people) == 506
    assert {p.track_id: p.identity for p in people[:6]} == said
    assert next(p.track_id for p in people if p.embedding is not None) >= 506 - 210
    assert sum(p.number_votes.nbytes for p in people[:6]) == 0


def test_after_a_cut_place_and_looks_prove_nothing():
    match = Match()
    match.frame(track(1, 100), embeddings={1: KIT[0]})
    match.frame(ended=(1,), is_cut=True)
    players, _ = match.frame(track(2, 110, is_new=True), embeddings={2: KIT[0]})
    assert list(players) == [2]
