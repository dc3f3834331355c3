"""Without truth, a run is held against the people that a stand-in finds on the grass."""

import json

import av
import numpy as np
import pytest

from tests.unit.synthetic_stand_in import write_stand_in
from training.__main__ import main

GREEN, GREY = (60, 140, 60), (120, 120, 120)
PERSON = {"x_min": 24, "y_min": 40, "x_max": 56, "y_max": 104}
"""Where the stand-in sees somebody in a picture of 128 px."""


def write_video(path, colour, frames=10, size=128):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for _ in range(frames):
            picture = np.full((size, size, 3), colour, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_run(path, boxed, frames=10):
    lines = [
        {
            "recognition": {
                "frame_index": str(index),
                "width_px": 128,
                "height_px": 128,
                "players": [{"track_id": "1", "box": PERSON, "confidence": 0.9}] * boxed(index),
            }
        }
        for index in range(frames)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def order(tmp_path, run, video):
    options = {
        "--stand-in": write_stand_in(tmp_path / "yolox.onnx"),
        "--video": video,
        "--every": 1,
        "--output": tmp_path / "out",
    }
    return ["evaluate", str(run), *(str(part) for pair in options.items() for part in pair)]


def evaluated(tmp_path, colour, boxed):
    run = write_run(tmp_path / "results.jsonl", boxed)
    assert main(order(tmp_path, run, write_video(tmp_path / "match.mp4", colour))) == 0
    return json.loads((tmp_path / "out" / "metrics.json").read_text())


def test_whoever_is_boxed_in_every_frame_is_boxed(tmp_path):
    metrics = evaluated(tmp_path, GREEN, lambda index: True)
    assert metrics["frames"] == metrics["sightings"] == 10
    assert metrics["boxed"] == metrics["players_mostly_boxed"] == 1.0
    assert metrics["players"] == 1
    assert (tmp_path / "out" / "boxes.jpg").is_file()


def test_whoever_is_boxed_too_rarely_is_not_mostly_boxed(tmp_path):
    metrics = evaluated(tmp_path, GREEN, lambda index: index < 7)
    assert metrics["boxed"] == 0.7
    assert metrics["players_mostly_boxed"] == 0.0
    assert metrics["shares"] == [0.7]


def test_frames_without_a_result_box_nobody(tmp_path):
    run = write_run(tmp_path / "results.jsonl", lambda index: True)
    lines = run.read_text().splitlines(keepends=True)
    run.write_text("".join(lines[:3] + lines[6:8]))  # two gaps, one of them at the end
    assert main(order(tmp_path, run, write_video(tmp_path / "match.mp4", GREEN))) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (metrics["frames"], metrics["unanswered"]) == (10, 5)
    assert (metrics["boxed"], metrics["players_mostly_boxed"]) == (0.5, 0.0)


@pytest.mark.parametrize(
    ("frames", "size", "complaint"),
    [
        (8, 128, "frame_index 9: match.mp4 ends before 8"),
        (10, 64, "128x128 px, but match.mp4 is 64x64"),
    ],
)
def test_a_video_of_something_else_is_refused(tmp_path, capsys, frames, size, complaint):
    run = write_run(tmp_path / "results.jsonl", lambda index: True)
    video = write_video(tmp_path / "match.mp4", GREEN, frames, size)
    assert main(order(tmp_path, run, video)) == 1
    assert complaint in capsys.readouterr().err


def test_people_off_the_grass_are_not_asked_for(tmp_path):
    metrics = evaluated(tmp_path, GREY, lambda index: False)
    assert metrics["sightings"] == 0
    assert metrics["boxed"] is None


@pytest.mark.parametrize(
    ("left_out", "said"), [("--video", "--stand-in: expected"), ("--stand-in", "--truth: expected")]
)
def test_what_is_missing_is_named(tmp_path, capsys, left_out, said):
    given = {"--video": tmp_path / "match.mp4", "--stand-in": tmp_path / "yolox.onnx"}
    del given[left_out]
    options = [str(part) for pair in given.items() for part in pair]
    assert main(["evaluate", str(tmp_path), *options]) == 1
    assert said in capsys.readouterr().err
