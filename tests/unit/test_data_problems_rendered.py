"""Rendered truth that is wrong is refused with file, place and expectation."""

import gzip

import numpy as np
import pytest
import tiny_data
from tiny_data import rendered_masks, rendered_truth, runs, write_rendered, write_video

from tests.unit.damaged_data import NAN, refused, setting
from training.data.pictures import VideoFile
from training.data.readers import parsing
from training.data.reading import check
from training.errors import InputError

OBJECT = ("frames", 1, "objects", 0)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (setting("width", value=...), "a.gt.json.gz: top level: expected field 'width'"),
        (setting("width", value="64"), "top level.width: expected a valid integer, got '64'"),
        (setting("width", value=99999), "top level.width: expected less than or equal to 16384"),
        (setting("n_frames", value=10**9), "n_frames: expected less than or equal to 400000"),
        (setting("fps", value=0), "top level.fps: expected greater than 0"),
        (setting("people", 0, "kind", value=...), "people[0]: expected field 'kind'"),
        (
            setting("people", 0, "kind", value="fan"),
            "people[0].kind: expected 'player', 'goalkeeper'",
        ),
        (
            setting("people", 0, "jersey_number", value=100),
            "people[0].jersey_number: expected less",
        ),
        (
            setting("frames", 1, "homography_pitch_to_image", value=[[1, 2, 3]] * 3),
            "frames[1].homography_pitch_to_image: expected a matrix that can be inverted",
        ),
        (setting("people", 1, "id", value=1), "people[1].id: expected an id of its own, got 1"),
        (
            setting(*OBJECT, "id", value=99),
            "frames[1].objects[0].id: expected the id of one of the",
        ),
        (setting(*OBJECT, "id", value=30), "expected each id once in frame 1, got 30 again"),
        (setting(*OBJECT, "box_visible", value=...), "expected field 'box_visible'"),
        (
            setting(*OBJECT, "box_visible", value=[1, 2, 3]),
            "objects[0].box_visible: expected an entry [3]",
        ),
        (setting(*OBJECT, "box_visible", value=[1, 2, NAN, 4]), "expected a finite number"),
        (setting(*OBJECT, "box_visible", value=[5, 5, 5, 9]), "positive width and height, got 0 x"),
        (
            setting(*OBJECT, "box_visible", value=[50, 5, 80, 9]),
            "box_visible: expected a box inside",
        ),
        (setting(*OBJECT, "box_full", value=[9, 9, 1, 1]), "box_full: expected a box of positive"),
        (
            setting(*OBJECT, "visible_px", value=-1),
            "visible_px: expected greater than or equal to 0",
        ),
        (setting(*OBJECT, "world", value=[1.0]), "objects[0].world: list should have at least 2"),
        (
            setting(*OBJECT, "number_box", value=[9, 9, 1, 1]),
            "number_box: expected a box of positive",
        ),
        (setting("people", 0, "id", value=100), "people[0].id: expected less than or equal to 99"),
        (setting("overlay_boxes", value=[[1, 2, 3]]), "overlay_boxes[0]: expected an entry [3]"),
        (setting("n_frames", value=4), "a.gt.json.gz: frames: expected n_frames = 4, got 3"),
        (setting("height", value=50), "a.mp4: expected 64x50 as in a.gt.json.gz, got 64x48"),
    ],
)
def test_rendered_truth_that_is_wrong_is_refused(tmp_path, damage, message):
    truth = rendered_truth()
    damage(truth)
    refused(write_rendered(tmp_path, truth), message)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (
            {"size": [48, 32], "frames": []},
            "a.masks.json.gz: size: expected [48, 64], got [48, 32]",
        ),
        ({"size": [48, 64], "frames": []}, "frames: expected 3 as in the truth, got 0"),
        ({"size": [48, 64]}, "a.masks.json.gz: top level: expected field 'frames'"),
        ({**rendered_masks(), "frames": [{"1": "junk"}] * 3}, "frames[0].1: expected run lengths"),
        ({**rendered_masks(), "frames": [{"x": runs()}] * 3}, "frames[0].x: expected an object id"),
        ({**rendered_masks(), "frames": [{"9" * 5000: runs()}] * 3}, "9: expected an object id"),
        (
            {**rendered_masks(), "frames": [{"1": runs(np.ones((60, 64), np.uint8))}] * 3},
            "frames[0].1: expected run lengths of 64x48 pixels",
        ),
    ],
)
def test_rendered_masks_that_are_wrong_are_refused(tmp_path, masks, message):
    refused(write_rendered(tmp_path, masks=masks), message)


def test_a_mask_that_is_missing_of_somebody_in_sight_is_refused(tmp_path):
    masks = {**rendered_masks(), "frames": [*rendered_masks()["frames"][:2], {}]}
    refused(
        write_rendered(tmp_path, masks=masks),
        "a.masks.json.gz: frames[2]: expected a mask of 1, who is in sight",
    )


def test_a_mask_with_nothing_set_is_sound(tmp_path):
    empty = runs(np.zeros((tiny_data.HEIGHT, tiny_data.WIDTH), np.uint8))
    masks = {**rendered_masks(), "frames": [{"1": empty}] * 3}
    assert check(write_rendered(tmp_path, masks=masks))[1].count == 0


def test_a_video_with_other_frames_missing_or_broken_is_refused(tmp_path):
    video = write_rendered(tmp_path) / "a.mp4"
    write_video(video, frames=5)
    refused(tmp_path, "a.mp4: expected 3 frames as in a.gt.json.gz, got 5")
    video.write_bytes(b"no video")
    refused(tmp_path, "a.mp4: expected a video")
    video.unlink()
    refused(tmp_path, "a.mp4: expected a video")
    with pytest.raises(InputError, match="expected a video"):
        list(VideoFile(video).frames())


def test_broken_json_is_refused_with_line_and_column(tmp_path):
    truth = write_rendered(tmp_path) / "a.gt.json.gz"
    truth.write_bytes(gzip.compress(b'{\n "width": 64,\n "height" 48}'))
    refused(tmp_path, "a.gt.json.gz: line 3, column 11: expected JSON")
    truth.write_bytes(b"not gzip")
    refused(tmp_path, "a.gt.json.gz: expected a readable file")
    truth.write_bytes(gzip.compress(b"[" * 200_000))
    refused(tmp_path, "a.gt.json.gz: expected JSON")
    truth.write_bytes(gzip.compress(b'{"width": ' + b"9" * 5000 + b"}"))
    refused(tmp_path, "a.gt.json.gz: expected JSON: Exceeds the limit")
    truth.write_bytes(gzip.compress(b"\xff\xfe"))
    refused(tmp_path, "byte 0: expected UTF-8 text")


def test_a_file_that_unpacks_to_an_absurd_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(parsing, "MAX_FILE_BYTES", 1 << 20)
    truth = write_rendered(tmp_path) / "a.gt.json.gz"
    truth.write_bytes(gzip.compress(b" " * (2 << 20)))
    refused(tmp_path, "a.gt.json.gz: expected at most 1 MiB")
