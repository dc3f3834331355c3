"""Wrong numbers, teams and roles move their own figures, by what they should."""

import math

import pytest

from tests.unit import synthetic_match as match
from tests.unit.evaluated_match import PEOPLE, assert_moved, figures, player_of


def test_wrong_numbers_cost_numbers_only(tmp_path):
    responses = match.damaged(lambda r: player_of(r, 2).update(jersey_number=88))
    responses[-1]["summary"]["tracks"][match.ASKED.index(2)]["jersey_number"] = 88
    assert_moved(
        figures(tmp_path, responses),
        {
            "numbers.right_of_readable": 2 / 3,
            "numbers.precision": 3 / 4,
            "numbers.frames.right_of_readable": 1 - 10 / 34,
            "numbers.frames.precision": 3 / 4,
            "game_state.gs_hota": math.sqrt(9 / 11),  # one of ten missing, and one too many
        },
    )


def test_risk_coverage_answers_the_surest_first(tmp_path):
    responses = match.perfect()
    responses[-1]["summary"]["tracks"][match.ASKED.index(2)]["jersey_number"] = 88
    curve = figures(tmp_path, responses)
    # Said with 0.65 (13), 0.20 (4), 0.15 (3) and, wrong, 0.10 (2); the four are all chances.
    assert curve["numbers.risk_coverage.coverage"] == [0.25, 0.5, 0.75, 1.0]
    assert curve["numbers.risk_coverage.risk"] == [0.0, 0.0, 0.0, 0.25]


def test_numbers_of_officials_and_of_nobody_cost_precision(tmp_path):
    def invent(recognition):
        box = {"x_min": 5.0, "y_min": 5.0, "x_max": 17.0, "y_max": 29.0}
        recognition["players"].append({"track_id": "99", "box": box})

    responses = match.damaged(invent)
    tracks = responses[-1]["summary"]["tracks"]
    tracks[match.ASKED.index(23)]["jersey_number"] = 7
    tracks.append({"track_id": "99", "jersey_number": 8})
    got = figures(tmp_path, responses)
    assert (got["numbers.said"], got["numbers.precision"]) == (6, pytest.approx(4 / 6, abs=1e-4))
    assert got["numbers.right_of_readable"] == got["numbers.frames.precision"] == 1


def test_unsaid_numbers_cost_no_precision(tmp_path):
    responses = match.damaged(lambda r: player_of(r, 2).pop("jersey_number"))
    del responses[-1]["summary"]["tracks"][match.ASKED.index(2)]["jersey_number"]
    assert_moved(
        figures(tmp_path, responses),
        {
            "numbers.right_of_readable": 2 / 3,
            "numbers.frames.right_of_readable": 1 - 10 / 34,
            "game_state.gs_hota": math.sqrt(9 / 11),  # one of ten missing, and one too many
        },
    )


def test_a_flipped_team_costs_its_outfield_players(tmp_path):
    def flip(recognition):
        if int(recognition["frame_index"]) >= 5:
            for number in (*match.RIGHT, 12):
                player_of(recognition, number)["team"] = "TEAM_B"

    share = (3 * 20 + 3 * 5) / (6 * 20)
    assert_moved(figures(tmp_path, match.damaged(flip)), {"attributes.team_accuracy": share})


def test_both_namings_of_the_teams_are_as_good(tmp_path):
    def rename(said):
        if "team" in said:
            said["team"] = "TEAM_A" if said["team"] == "TEAM_B" else "TEAM_B"

    responses = match.damaged(lambda r: [rename(player) for player in r["players"]])
    for track in responses[-1]["summary"]["tracks"]:
        rename(track)
    assert_moved(figures(tmp_path, responses), {})


def test_a_wrong_role_moves_one_cell_of_the_confusion(tmp_path):
    responses = match.damaged(lambda r: player_of(r, 23).update(role="ROLE_PLAYER"))
    got = figures(tmp_path, responses)
    share = 1 - 1 / PEOPLE
    assert_moved(
        got,
        {
            "attributes.role_accuracy": share,
            "detection.referee.ap50": 51 / 101,  # recall ends at 1/2
            "detection.player.ap50": None,
        },
    )
    assert got["attributes.role_confusion.counts"] == [
        [120, 0, 0, 0, 0],
        [0, 40, 0, 0, 0],
        [20, 0, 20, 0, 0],
    ]


def test_unspecified_roles_and_teams_are_unsaid_not_wrong(tmp_path):
    def forget(recognition):
        del player_of(recognition, 13)["role"], player_of(recognition, 13)["team"]

    got = figures(tmp_path, match.damaged(forget))
    assert_moved(
        got,
        {
            "attributes.role_said": 1 - 1 / PEOPLE,
            "attributes.team_said": 5 / 6,
            "detection.player.ap50": pytest.approx(84 / 101, abs=1e-4),  # recall ends at 5/6
        },
    )
    assert got["attributes.role_confusion.counts"][0] == [100, 0, 0, 0, 20]
