"""The ledger abstains in doubt and revises aloud."""

import numpy as np
import pytest

from orchestrator.servicer import _for_a_still
from orchestrator.settings import IdentifySettings, NumberSettings, Settings
from orchestrator.stages.evidence import Person
from orchestrator.types.people import Role, RosterEntry, Team, TeamSheet
from tests.unit.recorded_match import KIT, Match, reading, track


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
    assert players[1].jersey_number_confidence == 0


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
    assert all(identity.team_confidence > 0.9 for identity in seen.values())


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


def keeper_of(number, *, sheet_a, sheet_b):
    """Return what is said of somebody who is read as a goalkeeper with a number."""
    match = Match(team_a=TeamSheet(roster=sheet_a), team_b=TeamSheet(roster=sheet_b))
    _, tracks, kits = match.two_sides()
    for _ in range(6):
        players, _updates = match.frame(
            *tracks,
            track(7, 500),
            embeddings={**kits, 7: KIT[4]},
            readings={7: reading(number, role=1)},
        )
    keeper = players[7]
    assert keeper.role is Role.GOALKEEPER
    assert (keeper.team is None) == (keeper.team_confidence == 0)
    return keeper.jersey_number, keeper.team, keeper.player_id


ANNA, BEA = (RosterEntry(i, n, Role.GOALKEEPER) for i, n in (("anna", 1), ("bea", 12)))
CARLA, DORA = (RosterEntry(i, n, Role.PLAYER) for i, n in (("carla", 12), ("dora", 7)))


@pytest.mark.parametrize(
    ("number", "sheet_a", "sheet_b", "said"),
    [
        (1, (ANNA, CARLA), (BEA,), (1, Team.A, "anna")),
        (12, (ANNA, CARLA), (BEA,), (12, Team.B, "bea")),  # carla keeps no goal
        (7, (ANNA, CARLA), (BEA, DORA), (None, None, "")),  # nor does dora
        (7, (CARLA,), (DORA,), (7, Team.B, "dora")),  # who keeps a goal was not marked
        (1, (ANNA,), (ANNA,), (1, None, "")),
        (1, (ANNA,), (), (1, None, "")),  # B's keeper may wear it as well
        (7, (ANNA,), (), (7, None, "")),
    ],
)
def test_the_team_sheets_tell_whose_goalkeeper_it_is(number, sheet_a, sheet_b, said):
    assert keeper_of(number, sheet_a=sheet_a, sheet_b=sheet_b) == said


def test_where_a_side_names_its_goalkeeper_its_players_keep_their_numbers():
    match = Match(team_a=TeamSheet(roster=(ANNA, CARLA)))
    _, tracks, kits = match.two_sides()
    for _ in range(6):
        players, _ = match.frame(*tracks, embeddings=kits, readings={1: reading(12)})
    assert (players[1].role, players[1].player_id) == (Role.PLAYER, "carla")


def test_of_two_rivals_only_the_surer_carries_a_number():
    match = Match()
    _, tracks, kits = match.two_sides()
    for _ in range(6):
        players, _ = match.frame(
            *tracks, embeddings=kits, readings={1: reading(9, 0.8), 2: reading(9, 0.97)}
        )
    assert (players[1].jersey_number, players[2].jersey_number) == (None, 9)
    assert players[1].jersey_number_confidence == 0


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


def test_a_few_looks_at_clothes_tell_nobody_to_keep_a_goal():
    match = Match()
    _, tracks, kits = match.two_sides()
    for turn in range(8):
        looks = {**kits, 7: KIT[4]} if turn < 4 else kits
        players, _ = match.frame(*tracks, track(7, 500), embeddings=looks, readings={7: reading(1)})
    assert players[7].role is Role.PLAYER


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
