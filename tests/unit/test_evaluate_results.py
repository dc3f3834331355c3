"""The figures are perfect for perfect results, and each kind of damage hurts its own figure."""

import json
from pathlib import Path

import pytest

from training.data.footage import read_clip
from training.evaluation.results import evaluate

DATA = Path(__file__).parents[1] / "data"
FRAMES = 25


@pytest.fixture(scope="module")
def clip():
    return read_clip(DATA, "demo_01")


def perfect(clip):
    """Results that say exactly what is true of the first frames."""
    frames, tracks = [], {}
    for index in range(FRAMES):
        players, ball = [], None
        for seen in clip.sightings[index]:
            if seen.box_visible is None:
                continue
            box = dict(zip(("x_min", "y_min", "x_max", "y_max"), seen.box_visible, strict=True))
            if seen.is_ball:
                ball = {"box": box}
            elif seen.visible_px > 40:
                person = clip.people[seen.object_id]
                player = {
                    "track_id": str(seen.object_id),
                    "box": box,
                    "team": {"left": "TEAM_B", "right": "TEAM_A"}.get(
                        person.team, "TEAM_UNSPECIFIED"
                    ),
                    "role": "ROLE_REFEREE"
                    if "referee" in person.kind
                    else f"ROLE_{person.kind.upper()}",
                }
                players.append(player)
                track = {"track_id": str(seen.object_id)}
                if person.jersey_number:
                    track["jersey_number"] = person.jersey_number
                tracks[seen.object_id] = track
        frame = {"frame_index": str(index), "players": players}
        frames.append(frame | ({"ball": ball} if ball else {}))
    return frames, list(tracks.values())


def figures(clip, tmp_path, frames, tracks):
    lines = [{"recognition": frame} for frame in frames] + [{"summary": {"tracks": tracks}}]
    path = tmp_path / "results.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return evaluate(path, clip)


def test_perfect_results_get_perfect_figures(clip, tmp_path):
    got = figures(clip, tmp_path, *perfect(clip))
    shares = ("recall", "precision", "idf1", "team_accuracy", "role_accuracy", "ball_recall")
    assert [got[name] for name in shares] == [1.0] * 6
    assert (got["id_switches"], got["numbers_wrong"], got["numbers_unsaid"]) == (0, 0, 0)
    assert got["numbers_right"] > 10


def test_each_damage_hurts_its_own_figure(clip, tmp_path):
    frames, tracks = perfect(clip)
    victim = frames[0]["players"][0]["track_id"]
    for frame in frames[12:]:
        for player in frame["players"]:
            if player["track_id"] == victim:
                player["track_id"] = "99"
    frames[3]["players"].append(
        {**frames[3]["players"][0], "box": {"x_min": 0, "y_min": 0, "x_max": 9, "y_max": 9}}
    )
    del frames[5]["players"][1]
    frames[7]["players"][2]["role"] = "ROLE_OTHER"
    frames[8]["ball"]["box"]["x_max"] += 40
    tracks[1]["jersey_number"] = 98
    got = figures(clip, tmp_path, frames, tracks)
    assert got["id_switches"] == 1
    assert got["idf1"] < 1
    assert got["precision"] < 1
    assert got["recall"] < 1
    assert got["role_accuracy"] < 1
    balls = sum("ball" in frame for frame in frames)
    assert got["ball_recall"] == pytest.approx(1 - 1 / balls)
    assert got["numbers_wrong"] == 1
    assert got["team_accuracy"] == 1
