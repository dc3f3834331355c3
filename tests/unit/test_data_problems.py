"""Bad data is refused with file, place and expectation, and a check finds all of it."""

import gzip
import json
import shutil

import numpy as np
import pytest
import tiny_data
from PIL import Image
from tiny_data import (
    GAMEINFO,
    MOT_ROWS,
    SEQINFO,
    SOCCERNET_ROWS,
    YOLO_YAML,
    coco_file,
    gsr_file,
    rendered_masks,
    rendered_truth,
    runs,
    write_coco,
    write_davis,
    write_gsr,
    write_json,
    write_mot,
    write_rendered,
    write_soccernet,
    write_video,
    write_yolo,
)

from training.data.pictures import VideoFile
from training.data.problems import LIMIT, Problems
from training.data.readers import parsing
from training.data.reading import check, read
from training.errors import InputError


def read_whole(path):
    return [clip.mask_runs for clip in read(path)]


def refused(path, message):
    """Reading raises the problem and a check lists it."""
    _, problems = check(path)
    assert any(message in found for found in problems.messages), problems.messages
    with pytest.raises(InputError):
        read_whole(path)


def setting(*keys, value):
    """A damage: put `value` at the place that `keys` lead to; `...` removes what is there."""

    def damage(content):
        *parents, last = keys
        for key in parents:
            content = content[key]
        if value is ...:
            del content[last]
        else:
            content[last] = value

    return damage


OBJECT = ("frames", 1, "objects", 0)
NAN = float("nan")


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


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1,1,1,1,5,5,1\n", "gt.txt: line 1: expected 9 or 10 columns, got 7"),
        ("1,1,1,1,5,5,1,1,1\n1,1,1,1,9,9,1,1,1\n", "line 2: expected each id once in frame 0"),
        ("", "gt.txt: expected at least one line, found none"),
        ("1,1,1,one,5,5,1,1,1\n", "line 1, column 4: expected a finite number, got 'one'"),
        ("1,1,,1,1,5,5,1,1,1\n", "line 1, column 3: expected a finite number, got ''"),
        ("x" * 200_000, "gt.txt: line 1: expected 9 or 10 columns, got 1"),
        ("1,1,1,inf,5,5,1,1,1\n", "line 1, column 4: expected a finite number"),
        ("1.5,1,1,1,5,5,1,1,1\n", "line 1, column 1: expected a whole number, got 1.5"),
        ("1,-1,1,1,5,5,1,1,1\n", "line 1, column 2: expected an id of 0 or more"),
        ("0,1,1,1,5,5,1,1,1\n", "line 1, column 1: expected a frame of 1 to 3, got 0"),
        ("4,1,1,1,5,5,1,1,1\n", "line 1, column 1: expected a frame of 1 to 3, got 4"),
        ("1,1,1,1,-5,5,1,1,1\n", "line 1: expected a box of positive width and height"),
        ("1,1,99,1,5,5,1,1,1\n", "line 1: expected a box inside 64x48"),
        ("1,1,1,1,5,5,1,44,1\n", "line 1, column 8: expected a class of 1 to 13"),
    ],
)
def test_mot_rows_that_are_wrong_are_refused(tmp_path, rows, message):
    refused(write_mot(tmp_path, rows=rows), message)


@pytest.mark.parametrize(
    ("seqinfo", "message"),
    [
        ("name=x\n", "seqinfo.ini: File contains no section headers"),
        ("[Other]\n", "seqinfo.ini: expected a section [Sequence]"),
        (SEQINFO.replace("imWidth=64\n", ""), "imWidth: expected a whole number of 1 to 16384"),
        (
            SEQINFO.replace("frameRate=25", "frameRate=fast"),
            "frameRate, column 1: expected a finite number",
        ),
        (SEQINFO.replace("seqLength=3", "seqLength=9999999"), "seqLength: expected a whole number"),
        (
            SEQINFO.replace("seqLength=3", "seqLength=4"),
            "seqLength: expected 3, the number of pict",
        ),
        (SEQINFO.replace("seqLength=3", "seqLength=" + "3" * 5000), "seqLength"),
        (SEQINFO.replace("imWidth=64", "imWidth=65"), "imWidth, imHeight: expected (64, 48)"),
        (SEQINFO.replace("name=seq", "name=.."), "names that can name a folder, got '..'"),
        (SEQINFO.replace("imDir=img1", "imDir=img9"), "img9: expected a folder of pictures"),
    ],
)
def test_a_mot_sequence_that_is_wrong_is_refused(tmp_path, seqinfo, message):
    refused(write_mot(tmp_path, seqinfo), message)


@pytest.mark.parametrize(
    ("write", "file"),
    [(write_mot, "seq/img1/000003.jpg"), (write_davis, "JPEGImages/480p/corner/00002.jpg")],
)
def test_a_picture_of_another_size_than_the_first_is_refused(tmp_path, write, file):
    Image.new("RGB", (48, 64)).save(write(tmp_path) / file)
    refused(tmp_path, f"{file}: expected a picture of (64, 48) as the first, got (48, 64)")


def test_a_set_without_a_frame_is_refused(tmp_path):
    coco, yolo = tmp_path / "coco", tmp_path / "yolo"
    write_coco(coco, {"images": [], "annotations": [], "categories": []})
    refused(coco, f"{coco}: expected at least one frame, found none")
    for picture in (write_yolo(yolo) / "train" / "images").iterdir():
        picture.unlink()
    (yolo / "train" / "labels" / "game-1.txt").unlink()
    refused(yolo, f"{yolo}: expected at least one frame, found none")


def test_a_sequence_without_truth_is_refused(tmp_path):
    (write_mot(tmp_path) / "seq" / "gt" / "gt.txt").unlink()
    refused(tmp_path, "gt.txt: expected this file, found none")


@pytest.mark.parametrize(
    ("gameinfo", "rows", "message"),
    [
        (GAMEINFO.replace("ball;1", "dog;1"), SOCCERNET_ROWS, "trackletID_3: expected one of the"),
        (
            GAMEINFO,
            "1,9,1,1,5,5,1,-1,-1,-1\n",
            "column 2: expected a tracklet of gameinfo.ini, got 9",
        ),
        ("[Game]\n", SOCCERNET_ROWS, "gameinfo.ini: expected a section [Sequence]"),
        (GAMEINFO + "trackletID_1= ball;1\n", SOCCERNET_ROWS, "option 'trackletid_1'"),
    ],
)
def test_soccernet_tracking_that_is_wrong_is_refused(tmp_path, gameinfo, rows, message):
    refused(write_soccernet(tmp_path, rows=rows, gameinfo=gameinfo), message)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (setting("images", value=...), "Labels-GameState.json: top level: expected field 'images'"),
        (setting("images", value=[]), "images: expected at least one"),
        (setting("images", 0, "height", value=9), "images[0]: expected width and height (64, 48)"),
        (setting("images", 0, "file_name", value="9.jpg"), "9.jpg: expected this image file"),
        (setting("images", 0, "file_name", value="/9.jpg"), "file_name: expected a name inside"),
        (
            setting("images", 1, "image_id", value="3001"),
            "images[1].image_id: expected an id of its",
        ),
        (
            setting("images", 1, "file_name", value="000001.jpg"),
            "images[1].file_name: expected a picture of its own, got 000001.jpg",
        ),
        (setting("info", "name", value="../up"), "names that can name a folder, got '../up'"),
        (setting("info", "seq_length", value=9), "images: expected seq_length = 9, got 3"),
        (setting("info", "version", value="1.0"), "info.version: expected 1.1 or newer"),
        (
            setting("annotations", 0, "track_id", value=...),
            "annotations[0]: expected field 'track_id'",
        ),
        (
            setting("annotations", 0, "attributes", "role", value="fan"),
            "attributes.role: expected 'player'",
        ),
        (
            setting("annotations", 0, "attributes", "team", value="up"),
            "attributes.team: expected 'left' or 'right'",
        ),
        (setting("annotations", 0, "attributes", "jersey", value="x"), "jersey: expected 0 to 99"),
        (setting("annotations", 1, "attributes", "jersey", value="7"), "as before for track_id 1"),
        (
            setting("annotations", 0, "image_id", value="1"),
            "image_id: expected an image's id, got '1'",
        ),
        (
            setting("annotations", 0, "bbox_image", "w", value=-4),
            "annotations[0].bbox_image: expected",
        ),
        (
            setting("annotations", 0, "bbox_image", "x", value=NAN),
            "bbox_image.x: expected a finite",
        ),
        (setting("annotations", 0, "bbox_image", "x", value=900), "expected a box inside 64x48"),
        (setting("annotations", 0, "bbox_pitch", value={}), "expected field 'x_bottom_middle'"),
        (setting("annotations", 2, "track_id", value=1), "expected each id once in frame 1"),
    ],
)
def test_game_state_that_is_wrong_is_refused(tmp_path, damage, message):
    content = gsr_file()
    damage(content)
    refused(write_gsr(tmp_path, content), message)


def test_davis_masks_that_are_wrong_are_refused(tmp_path):
    mask = write_davis(tmp_path) / "Annotations" / "480p" / "corner" / "00001.png"
    kept = mask.read_bytes()
    Image.new("P", (32, 48)).save(mask)
    refused(tmp_path, "00001.png: expected a mask of (64, 48) as the picture, got (32, 48)")
    Image.new("RGB", (64, 48)).save(mask)
    refused(tmp_path, "00001.png: expected a PNG with a palette, got mode RGB")
    mask.write_bytes(kept[:60])
    refused(tmp_path, "00001.png: expected an image")
    mask.unlink()
    refused(tmp_path, "corner: expected one mask for each of 3 pictures, of the same name, got 2")
    shutil.rmtree(tmp_path / "JPEGImages" / "480p")
    refused(tmp_path, "corner: expected a folder of pictures, found none")


def test_a_picture_of_absurd_size_is_refused_before_it_is_decoded(tmp_path):
    mask = write_davis(tmp_path) / "JPEGImages" / "480p" / "corner" / "00000.jpg"
    Image.new("L", (20000, 2)).save(mask, "PNG")
    refused(tmp_path, "00000.jpg: expected sides of at most 16384 px, got 20000x2")


def test_a_check_lists_the_problems_of_all_clips_and_keeps_what_is_sound(tmp_path):
    truth = rendered_truth()
    truth["frames"][0]["objects"][0]["box_visible"] = [5, 5, 5, 9]
    truth["frames"][2]["objects"][2]["visible_px"] = "many"
    write_rendered(tmp_path, truth, name="a")
    write_rendered(tmp_path, name="b")
    (write_rendered(tmp_path, name="c") / "c.mp4").unlink()
    clips, problems = check(tmp_path)
    assert problems.count == 3
    places = ("a.gt.json.gz: frames[0]", "a.gt.json.gz: frames[2].objects[2].visible_px", "c.mp4")
    assert all(any(p in m for m in problems.messages) for p in places)
    assert [len(frame) for frame in clips[0].sightings] == [2, 3, 2]
    assert clips[1].name == "b"


def test_clips_of_one_name_are_refused(tmp_path):
    write_mot(tmp_path / "train", rows=MOT_ROWS)
    write_mot(tmp_path / "test", rows=MOT_ROWS)
    refused(tmp_path, "expected each clip's name once, got seq 2 times")


def test_endless_problems_are_counted_and_not_kept():
    problems = Problems(is_strict=False)
    for index in range(LIMIT + 5):
        with problems.each():
            raise InputError(f"problem {index}")
    assert (len(problems.messages), problems.count) == (LIMIT, LIMIT + 5)


def test_coco_files_may_be_huge_in_fields_nobody_asked_for(tmp_path):
    content = json.loads(json.dumps(coco_file()))
    content["licenses"] = [{"id": i} for i in range(1000)]
    write_coco(tmp_path, content)
    write_json(tmp_path / "train" / "_annotations.coco.json", content)
    assert check(tmp_path)[1].count == 0


JUNK = [None, True, -1, 10**400, 1e300, "", "x" * 50, [], {}, [None], {"size": 1}, "9", [[1e9] * 8]]


def places(value, path=()):
    """Every place in a JSON value, as keys and indices."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield (*path, key)
            yield from places(value[key], (*path, key))


def only_told(folder):
    """A check tells problems and never fails otherwise; a clip that it passes can be read."""
    try:
        _, problems = check(folder)
    except InputError:
        return
    if not problems.count:
        read_whole(folder)


@pytest.mark.parametrize("name", ["rendered", "masks", "coco", "gsr"])
def test_junk_anywhere_in_a_json_file_breaks_nothing_but_the_check(tmp_path, name):
    contents = {
        "rendered": (rendered_truth, write_rendered, "a.gt.json.gz"),
        "masks": (rendered_masks, write_rendered, "a.masks.json.gz"),
        "coco": (coco_file, write_coco, "train/_annotations.coco.json"),
        "gsr": (gsr_file, write_gsr, "SNGS-1/Labels-GameState.json"),
    }
    make, write, file = contents[name]
    write(tmp_path)
    random = np.random.default_rng(7)
    every = list(places(make()))
    for _ in range(150):
        content = json.loads(json.dumps(make()))
        place = every[random.integers(len(every))]
        setting(*place, value=JUNK[random.integers(len(JUNK))])(content)
        write_json(tmp_path / file, content)
        only_told(tmp_path)


@pytest.mark.parametrize(
    ("write", "file"),
    [
        (write_yolo, "data.yaml"),
        (write_yolo, "train/labels/game-1.txt"),
        (write_mot, "seq/gt/gt.txt"),
        (write_mot, "seq/seqinfo.ini"),
        (write_soccernet, "seq/gameinfo.ini"),
    ],
)
def test_junk_anywhere_in_a_text_file_breaks_nothing_but_the_check(tmp_path, write, file):
    sound = (write(tmp_path) / file).read_bytes()
    random = np.random.default_rng(7)
    for _ in range(80):
        data = bytearray(sound)
        at = int(random.integers(len(data)))
        data[at : at + int(random.integers(4))] = random.bytes(int(random.integers(4)))
        (tmp_path / file).write_bytes(data)
        only_told(tmp_path)
