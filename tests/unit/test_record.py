"""The ledger abstains in doubt, revises aloud, and finds people again."""

import numpy as np
import pytest

from orchestrator.servicer import _for_a_still
from orchestrator.settings import IdentifySettings, NumberSettings, Settings
from orchestrator.stages.evidence import Person
from orchestrator.stages.record import IdentityLedger, Observations
from orchestrator.types.frames import Encoding, FrameHeader
from orchestrator.types.people import NumberReading, Role, RosterEntry, Team, TeamSheet
from orchestrator.types.pictures import Shift
from orchestrator.types.streams import StreamConfig
from orchestrator.types.tracks import Track, Tracks, TrackState

KIT = np.eye(6, dtype=np.float32)


def track(
    object_id: int,
    x: float = 0.0,
    label: str | None = "person",
    is_new: bool = False,
    is_cut_off: bool = False,
):
    box = np.array([x, 10, x + 20, 60], np.float32)
    return Track(object_id, box, 0.9, TrackState.CONFIRMED, label, None, is_new, is_cut_off)


def pan(dx: float) -> Shift:
    return Shift(np.array([[1, 0, dx], [0, 1, 0]], np.float32))


def reading(number: int, sure: float = 0.95, visible: float = 0.9, role: int = 0):
    numbers = np.full(100, (1 - sure) / 99, np.float32)
    numbers[number] = sure
    roles = np.full(4, 0.02, np.float32)
    roles[role] = 0.94
    return NumberReading(visible, numbers, roles)


_AT_REST = pan(0)


class Match:
    """Plays frames into a ledger."""

    def __init__(self, **config):
        self.ledger = IdentityLedger(
            StreamConfig("m", Encoding.JPEG, frame_rate=10, **config),
            IdentifySettings(),
            NumberSettings(),
        )
        self.count = 0

    def frame(
        self, *tracks, ended=(), embeddings=None, readings=None, is_cut=False, shift=_AT_REST
    ):
        players, updates = self.ledger.record(
            FrameHeader(self.count),
            self.count,
            Tracks(tuple(tracks), tuple(ended), is_cut=is_cut, shift=shift),
            Observations(embeddings or {}, readings or {}),
        )
        self.count += 1
        return {p.track_id: p.identity for p in players}, updates

    def two_sides(self, frames: int = 6):
        """Objects 1-3 wear kit 0, objects 4-6 kit 1."""
        tracks = [track(i, 60.0 * i) for i in range(1, 7)]
        kits = {i: KIT[0] if i <= 3 else KIT[1] for i in range(1, 7)}
        seen = {}
        for _ in range(frames):
            seen, _ = self.frame(*tracks, embeddings=kits)
        return seen, tracks, kits


def test_a_number_is_said_only_after_enough_clear_readings():
    match = Match()
    said = []
    for _ in range(4):
        players, _updates = match.frame(track(1), readings={1: reading(7)})
        said.append(players[1].jersey_number)
    assert said == [None, 7, 7, 7]
    assert players[1].jersey_number_confidence > 0.9


def test_readings_that_contradict_each_other_say_nothing():
    match = Match()
    for turn in range(12):
        players, _ = match.frame(track(1), readings={1: reading(7 if turn % 2 else 8)})
    assert players[1].jersey_number is None


def test_an_unreadable_number_does_not_count():
    match = Match()
    for _ in range(12):
        players, _ = match.frame(track(1), readings={1: reading(7, visible=0.2)})
    assert players[1].jersey_number is None


def test_officials_get_no_number_and_no_team():
    match = Match()
    _, tracks, kits = match.two_sides()
    referee = {1: reading(7, role=2)}
    for _ in range(8):
        players, _ = match.frame(*tracks, embeddings=kits, readings=referee)
    assert (players[1].role, players[1].team, players[1].jersey_number) == (
        Role.REFEREE,
        None,
        None,
    )


def test_every_change_is_announced_once():
    match = Match()
    updates = [match.frame(track(1), readings={1: reading(7)})[1] for _ in range(6)]
    announced = [(u.frame_index, u.changed) for batch in updates for u in batch]
    assert announced == [(1, ("jersey_number",)), (3, ("role",))]


def test_sides_are_named_and_announced():
    match = Match()
    seen, _, _ = match.two_sides()
    assert [seen[i].team for i in range(1, 7)] == [Team.A] * 3 + [Team.B] * 3


def test_a_detector_that_knows_roles_is_believed():
    match = Match()
    for _ in range(6):
        players, _ = match.frame(track(1, label="goalkeeper"))
    assert players[1].role is Role.GOALKEEPER


def test_the_team_sheet_rules_out_other_numbers_and_names_the_player():
    roster = (RosterEntry("maria", 17, Role.PLAYER),)
    match = Match(team_a=TeamSheet(roster=roster))
    _, tracks, kits = match.two_sides()
    for _ in range(6):
        players, _ = match.frame(
            *tracks, embeddings=kits, readings={1: reading(17), 2: reading(11)}
        )
    assert (players[1].jersey_number, players[1].player_id) == (17, "maria")
    assert players[2].jersey_number is None


def test_two_team_sheets_rule_out_what_is_on_neither_before_the_side_is_known():
    sheets = [TeamSheet(roster=(RosterEntry(f"p{n}", n, Role.PLAYER),)) for n in (17, 5)]
    match = Match(team_a=sheets[0], team_b=sheets[1])
    readings = {1: reading(11), 2: reading(5)}
    for _ in range(6):
        players, _ = match.frame(track(1), track(2, 100), readings=readings)
    assert (players[1].jersey_number, players[2].jersey_number) == (None, 5)


def test_of_two_rivals_only_the_surer_carries_a_number():
    match = Match()
    _, tracks, kits = match.two_sides()
    for _ in range(6):
        players, _ = match.frame(
            *tracks, embeddings=kits, readings={1: reading(9, 0.8), 2: reading(9, 0.97)}
        )
    assert (players[1].jersey_number, players[2].jersey_number) == (None, 9)


def test_two_who_claim_a_number_equally_do_not_take_turns():
    match, rng = Match(), np.random.default_rng(1)
    _, tracks, _ = match.two_sides()
    revised = 0
    for _ in range(400):
        readings = {i: reading(9 if rng.random() < 0.8 else 1, 0.9) for i in (1, 2)}
        players, updates = match.frame(*tracks, readings=readings)
        revised += sum("jersey_number" in update.changed for update in updates)
    assert {players[1].jersey_number, players[2].jersey_number} == {9, None}
    assert revised <= 4


def test_a_lost_person_who_returns_nearby_and_alike_keeps_the_id():
    match = Match()
    match.frame(track(1, 100), embeddings={1: KIT[0]})
    match.frame(ended=(1,))
    players, _ = match.frame(track(2, 110, is_new=True), embeddings={2: KIT[0]})
    assert list(players) == [1]


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


def test_a_player_in_neither_kit_is_told_to_keep_a_goal():
    match = Match()
    _, tracks, kits = match.two_sides()
    keeper = track(7, 500)
    for _ in range(5):
        players, _ = match.frame(
            *tracks, keeper, embeddings={**kits, 7: KIT[4]}, readings={7: reading(1)}
        )
    assert players[7].role is Role.GOALKEEPER
    assert players[7].team is None
    assert players[1].role is not Role.GOALKEEPER


def test_a_referee_in_neither_kit_stays_a_referee():
    match = Match()
    _, tracks, kits = match.two_sides()
    official = track(7, 500)
    for _ in range(6):
        players, _ = match.frame(
            *tracks, official, embeddings={**kits, 7: KIT[4]}, readings={7: reading(1, role=2)}
        )
    assert players[7].role is Role.REFEREE


def test_a_single_image_says_a_number_that_it_reads_clearly():
    person = Person(1, 1, 0, np.array([0, 10, 20, 60], np.float32))
    person.read(reading(7))
    assert person.number(_for_a_still(Settings()).number, None)[0] == 7


def test_a_single_image_is_judged_by_the_operators_settings():
    settings = Settings(
        identify=IdentifySettings(team_margin=0.4),
        number=NumberSettings(min_votes=0.8, min_confidence=0.9),
    )
    still = _for_a_still(settings)
    assert still.identify.team_margin == 0.4
    assert (still.number.min_votes, still.number.min_confidence) == (0.8, 0.9)
    assert (still.number.min_readings, still.number.role_min_readings) == (1, 1)
    assert still.number.max_crops_per_frame == still.identify.max_crops_per_frame == 64


def test_a_frame_that_a_resumed_stream_repeats_counts_once_for_its_people():
    match = Match()
    for _ in range(5):
        match.frame(track(1))
    match.count -= 2  # nobody was told of the last two
    for _ in range(4):
        match.frame(track(1))
    (person,) = match.ledger.people
    assert (person.frame_count, person.last_frame) == (7, 6)
