"""GS-HOTA against labels as SoccerNet's, which tell pitch positions and no homography."""

import json

import cv2
import numpy as np
import pytest

from tests.unit import synthetic_match as match
from tests.unit.evaluated_match import flat
from training.evaluation import scores
from training.evaluation.runs import read_run
from training.evaluation.truth import truth_of

SINCE = 3
"""In the frames before, only two people are labelled."""


def write_labels(folder, positions):
    """Write the match as `Labels-GameState.json`; `positions` gives metres for foot points."""
    (folder / "img1").mkdir(parents=True)
    picture = cv2.imencode(".jpg", np.zeros((match.HEIGHT, match.WIDTH, 3), np.uint8))[1].tobytes()
    size = {"width": match.WIDTH, "height": match.HEIGHT}
    images = [{"image_id": f"1{i:03d}", "file_name": f"{i:06d}.jpg"} | size for i in frames()]
    for image in images:
        (folder / "img1" / image["file_name"]).write_bytes(picture)
    content = {
        "info": {"version": "1.3", "name": folder.name, "frame_rate": 25},
        "images": images,
        "annotations": [
            entry(person, index, positions)
            for index in frames()
            for person in (match.ASKED if index >= SINCE else match.ASKED[:2])
        ],
    }
    (folder / "Labels-GameState.json").write_text(json.dumps(content))


def frames():
    return range(match.FRAMES)


def entry(person, index, positions):
    x0, y0, x1, y1 = match.place(person, index)
    x, y = positions((x0 + x1) / 2, y1)
    role = {
        **dict.fromkeys(match.KEEPERS, "goalkeeper"),
        **dict.fromkeys(match.OFFICIALS, "referee"),
    }
    is_known = person in (*match.READABLE, match.GLIMPSED)
    return {
        "image_id": f"1{index:03d}",
        "track_id": person,
        "supercategory": "object",
        "attributes": {
            "role": role.get(person, "player"),
            "team": None if person in match.OFFICIALS else "left" if person < 12 else "right",
            "jersey": str(person + 10) if is_known else None,
        },
        "bbox_image": {"x": x0, "y": y0, "w": x1 - x0, "h": y1 - y0},
        "bbox_pitch": {"x_bottom_middle": x, "y_bottom_middle": y},
    }


def metres(x, y):
    """SoccerNet's y points to the near touchline; four pixels are a metre."""
    return (x - match.WIDTH / 2) / 4, (y - match.HEIGHT / 2) / 4


def figures(folder, responses, positions=metres):
    write_labels(folder / "truth" / "synthetic", positions)
    run = read_run(match.write_run(folder / "run", responses))
    return flat(scores.evaluate([(run, *truth_of([run], [folder / "truth"]))])["pooled"])


def late(change=lambda _: None):
    """The responses to the frames in which everybody is labelled."""
    return match.damaged(change)[SINCE:]


def test_positions_give_the_homography_of_frames_with_enough_people(tmp_path):
    got = figures(tmp_path, late())
    assert got["game_state.gs_hota"] == 1.0
    assert got["game_state.frames"] == match.FRAMES - SINCE


def test_metres_are_those_of_the_positions(tmp_path):
    def sink(recognition):
        for player in recognition["players"]:
            match.move(player["box"], down=4)

    got = figures(tmp_path, late(sink))
    # 1 m off, as in the test of rendered truth.
    assert got["game_state.gs_hota"] == pytest.approx(17 / 19, abs=1e-4)


def test_who_stands_beyond_the_plane_of_the_centre_spot_is_before_the_camera(tmp_path):
    def seen_along_the_pitch(x, y):
        depth = (y - 40) / 400  # a camera that looks away from the centre spot
        return -20 - 1 / depth, (x - match.WIDTH / 2) / 40 / depth

    got = figures(tmp_path, late(), seen_along_the_pitch)
    assert got["game_state.gs_hota"] == 1.0


@pytest.mark.parametrize(
    "positions",
    [
        lambda _x, _y: (3.0, 4.0),
        lambda x, _y: (x / 4, x / 8),
        lambda x, y: (20 * np.sin(x), 20 * np.cos(3 * x + y)),
    ],
    ids=["one place", "one line", "at random"],
)
def test_positions_that_make_no_homography_measure_nothing(tmp_path, positions):
    got = figures(tmp_path, late(), positions)
    assert got["game_state.gs_hota"] is None
    assert got["game_state.frames"] == 0
    assert got["tracking.deta"] > 0.8
