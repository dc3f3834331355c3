"""COCO and YOLO sets that are wrong are refused with file, place and expectation."""

import pytest
from tiny_data import YOLO_YAML, coco_file, runs, write_coco, write_yolo

from tests.unit.damaged_data import NAN, refused, setting
from training.data.reading import check


def test_a_crowd_beyond_belief_is_refused(tmp_path):
    content = coco_file()
    content["annotations"] = [{"image_id": 0, "category_id": 1, "bbox": [1, 1, 5, 5]}] * 501
    refused(write_coco(tmp_path, content), "expected at most 500 objects in a frame")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            setting("images", value=...),
            "_annotations.coco.json: top level: expected field 'images'",
        ),
        (setting("images", 0, "id", value="0"), "images[0].id: expected a valid integer"),
        (setting("images", 1, "id", value=0), "images[1].id: expected an id of its own, got 0"),
        (setting("images", 0, "width", value=32), "images[0]: expected width and height (64, 48)"),
        (setting("images", 0, "file_name", value="no.jpg"), "no.jpg: expected this image file"),
        (setting("images", 0, "file_name", value="a\0.jpg"), "expected an image: embedded null"),
        (setting("images", 0, "file_name", value="../x.jpg"), "file_name: expected a name inside"),
        (
            setting("images", 2, "file_name", value="match_a-0_png.rf.0af0.jpg"),
            "images[2].file_name: expected a picture of its own, got match_a-0_png.rf.0af0.jpg",
        ),
        (
            setting("annotations", 0, "image_id", value=9),
            "annotations[0].image_id: expected the id",
        ),
        (setting("annotations", 0, "bbox", value=...), "annotations[0]: expected field 'bbox'"),
        (
            setting("annotations", 0, "bbox", value=[1, 1, 0, 4]),
            "annotations[0].bbox: expected a box",
        ),
        (
            setting("annotations", 0, "bbox", value=[1, 1, NAN, 4]),
            "bbox[2]: expected a finite number",
        ),
        (setting("annotations", 0, "bbox", value=[-9, 1, 4, 4]), "expected a box inside 64x48"),
        (
            setting("annotations", 0, "category_id", value=7),
            "category_id: expected a category's id",
        ),
        (setting("categories", 1, "name", value="car"), "got 'car'"),
        (
            setting("annotations", 0, "segmentation", value=[[1, 1, 9, 9, 1e12, 4]]),
            "annotations[0].segmentation: expected a box inside 64x48",
        ),
        (
            setting("annotations", 0, "segmentation", value=[[1, 1, 9, 9, 1, 4, 5]]),
            "annotations[0].segmentation: expected pairs of x and y, got 7 values",
        ),
        (
            setting("annotations", 0, "segmentation", value={"size": [48, 64], "counts": [5, 9]}),
            "annotations[0].segmentation: expected a mask of 64x48 pixels",
        ),
        (
            setting("annotations", 0, "segmentation", value={"size": [48, 64], "counts": "o" * 99}),
            "annotations[0].segmentation: expected a mask of 64x48 pixels",
        ),
        (
            setting("annotations", 0, "segmentation", value=[[1]]),
            "expected polygons or run lengths",
        ),
        (
            setting("annotations", 0, "segmentation", value="junk"),
            "expected polygons or run lengths",
        ),
        (
            setting("annotations", 0, "segmentation", value={"size": [9, 9], "counts": runs()}),
            "annotations[0].segmentation: expected a mask of 64x48 pixels",
        ),
        (
            setting("annotations", 0, "segmentation", value={"size": [48, 64], "counts": "zz"}),
            "annotations[0].segmentation: expected a mask of 64x48 pixels",
        ),
    ],
)
def test_coco_that_is_wrong_is_refused(tmp_path, damage, message):
    content = coco_file()
    damage(content)
    refused(write_coco(tmp_path, content), message)


def test_a_track_id_twice_in_a_coco_frame_is_refused(tmp_path):
    content = coco_file()
    for annotation in content["annotations"]:
        annotation["track_id"] = 5
    refused(write_coco(tmp_path, content), "expected each id once in frame 0, got 5 again")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            "1 0.5 0.5 0.1",
            "game-1.txt: line 1: expected 5 columns, or a class and at least 3 points",
        ),
        ("1 0.5 0.5 0.1 0.1 0.3 0.3 0.3", "line 1: expected 5 columns"),
        ("\n1 0.5 x 0.1 0.1", "game-1.txt: line 2, column 3: expected a finite number, got 'x'"),
        ("1 0.5 nan 0.1 0.1", "line 1, column 3: expected a finite number"),
        ("7 0.5 0.5 0.1 0.1", "line 1: expected a class of data.yaml in column 1, got 7"),
        ("0.5 0.5 0.5 0.1 0.1", "expected a class of data.yaml in column 1, got 0.5"),
        ("1 0.9 0.5 0.4 0.1", "line 1: expected a box inside 64x48"),
        ("1 0.5 0.5 -0.1 0.1", "line 1: expected a box of positive width and height"),
        ("1 0.1 0.1 0.1 0.1 0.5 1.5", "line 1: expected a box"),
    ],
)
def test_yolo_lines_that_are_wrong_are_refused(tmp_path, lines, message):
    refused(write_yolo(tmp_path, lines=lines), message)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("names: [a", "data.yaml: expected YAML"),
        ("just words", "data.yaml: expected fields such as names and train"),
        ("train: train/images\n", "data.yaml: names: expected class names"),
        ("names: {0: 1}\ntrain: x\n", "data.yaml: names: expected class names"),
        ("names: [ball]\n", "data.yaml: expected one of the fields train, val, test"),
        ("names: [ball]\ntrain: [a, b]\n", "data.yaml: train: expected a folder"),
        (f"{YOLO_YAML}val: ./train/images\n", "data.yaml: val: expected a folder of its own"),
        ("names: [ball]\ntrain: nowhere/images\n", "expected a folder of pictures, found none"),
        ("names: [ball]\ntrain: train\n", "expected a path with a folder images/"),
        (YOLO_YAML.replace("player", "car"), "line 1: expected one of the classes"),
    ],
)
def test_a_yolo_configuration_that_is_wrong_is_refused(tmp_path, yaml, message):
    refused(write_yolo(tmp_path, yaml), message)


def test_yolo_labels_without_a_picture_and_pictures_that_are_none_are_refused(tmp_path):
    write_yolo(tmp_path)
    (tmp_path / "train" / "labels" / "lost.txt").write_text("")
    refused(tmp_path, "lost.txt: expected a picture lost")
    (tmp_path / "train" / "images" / "game-2.jpg").write_bytes(b"no picture")
    refused(tmp_path, "game-2.jpg: expected an image")


def test_coco_fields_that_nobody_asked_for_are_passed_over(tmp_path):
    content = coco_file() | {"licenses": [{"id": index} for index in range(1000)]}
    assert check(write_coco(tmp_path, content))[1].count == 0
