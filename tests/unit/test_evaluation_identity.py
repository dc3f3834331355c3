"""Ids that are swapped or change cost association, and the cause of each switch is told."""

import math
from dataclasses import replace

import pytest

from tests.unit import synthetic_match as match
from tests.unit.evaluated_match import BOXES, assert_moved, figures, loaded, player_of
from training.evaluation import scores
from training.evaluation.matching import match_run


def test_swapped_ids_cost_association_only(tmp_path):
    def swap(recognition):
        if int(recognition["frame_index"]) >= 10:
            first, second = player_of(recognition, 2), player_of(recognition, 3)
            first["track_id"], second["track_id"] = "3", "2"

    got = figures(tmp_path, match.damaged(swap))
    association = (8 + 2 * (10 / 30)) / 10  # each half: 10 boxes right, 10 missing, 10 too many
    assert_moved(
        got,
        {
            "tracking.id_switches": 2,
            "tracking.mota": 1 - 2 / BOXES,
            "tracking.idf1": 1 - 20 / BOXES,
            "tracking.assa": association,
            "tracking.hota": math.sqrt(association),
            "game_state.gs_hota": None,
        },
    )
    assert got["tracking.switch_causes.taken_over"] == 2
    assert got["tracking.id_switches_per_10s"] == pytest.approx(2 / (match.FRAMES / 25) * 10)
    assert [s["frame_index"] for s in got["tracking.switches"]] == [10, 10]


def test_a_person_known_again_late_switches_at_once_but_not_in_the_end(tmp_path):
    def renamed(recognition):
        if int(recognition["frame_index"]) >= 10:
            player_of(recognition, 2)["track_id"] = "50"

    update = {"track_id": "50", "frame_index": "15", "merged_into_track_id": "2"}
    got = figures(tmp_path, [*match.damaged(renamed), {"identity_update": update}])
    assert (got["tracking.id_switches"], got["revised.id_switches"]) == (1, 0)
    assert got["tracking.hota"] < 1
    assert (got["revised.hota"], got["revised.idf1"]) == (1, 1)


@pytest.mark.parametrize(("frames", "takeovers"), [(5, 0), (6, 4)])
def test_a_track_is_taken_over_when_it_stays_with_another(tmp_path, frames, takeovers):
    def swap(recognition):
        if 6 <= int(recognition["frame_index"]) < 6 + frames:
            first, second = player_of(recognition, 2), player_of(recognition, 3)
            first["track_id"], second["track_id"] = "3", "2"

    got = figures(tmp_path, match.damaged(swap))
    assert got["tracking.id_switches"] == 4
    assert got["tracking.takeovers"] == takeovers  # there and back, of both


@pytest.mark.parametrize(
    ("cause", "change"),
    [
        ("cut", lambda seen, index: moved(seen, 60 * (index >= 10))),
        ("returned", lambda seen, index: replace(seen, visible_px=0) if index == 9 else seen),
        ("crossing", lambda seen, index: behind_4(seen) if index == 9 else seen),
        ("lost", lambda seen, index: seen),
    ],
)
def test_the_cause_of_a_switch_is_told(tmp_path, cause, change):
    def renamed(recognition):
        index = int(recognition["frame_index"])
        if index >= 10:
            player_of(recognition, 2)["track_id"] = "88"
        if cause == "cut" and index >= 10:
            for player in recognition["players"]:
                match.move(player["box"], right=60)

    run, clip = loaded(tmp_path, match.damaged(renamed))
    changed = tuple(
        tuple(change(s, i) if s.object_id == 2 or cause == "cut" else s for s in seen)
        for i, seen in enumerate(clip.sightings)
    )
    tracking = scores.evaluate([(run, replace(clip, sightings=changed))])["pooled"]["tracking"]
    assert tracking["id_switches"] == 1
    assert {k: v for k, v in tracking["switch_causes"].items() if v} == {cause: 1}
    (switch,) = tracking["switches"]
    assert (switch["frame_index"], switch["person_id"]) == (10, 2)
    assert (switch["from_track"], switch["to_track"]) == (2, 88)


def test_a_match_is_kept_while_it_overlaps(tmp_path):
    def rival(recognition):
        index = int(recognition["frame_index"])
        if index >= 10:
            second = dict(player_of(recognition, 2), track_id="77", box=dict(box_of(recognition)))
            match.move(box_of(recognition), right=2)
            recognition["players"].append(second)

    def box_of(recognition):
        return player_of(recognition, 2)["box"]

    matched = match_run(*loaded(tmp_path, match.damaged(rival)))
    tracks = {p.track_id for f in matched.frames for s, p in f.matches if s.object_id == 2}
    assert tracks == {2}


def moved(seen, right):
    def move(box):
        return None if box is None else (box[0] + right, box[1], box[2] + right, box[3])

    return replace(seen, box_visible=move(seen.box_visible), box_full=move(seen.box_full))


def behind_4(seen):
    x0, y0, x1, y1 = match.place(4, 9)
    return replace(seen, box_full=(x0 + 4, y0, x1 + 4, y1))
