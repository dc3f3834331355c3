"""Sequences that are wrong are refused with file, place and expectation."""

import shutil

import pytest
from PIL import Image
from tiny_data import (
    GAMEINFO,
    SEQINFO,
    SOCCERNET_ROWS,
    gsr_file,
    write_davis,
    write_gsr,
    write_mot,
    write_soccernet,
)

from tests.unit.damaged_data import NAN, refused, setting


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


def test_game_state_pictures_of_two_sizes_are_refused_even_if_the_labels_know(tmp_path):
    content = gsr_file()
    content["images"][1] |= {"width": 48, "height": 64}
    file = write_gsr(tmp_path, content) / "SNGS-1/img1" / content["images"][1]["file_name"]
    Image.new("RGB", (48, 64)).save(file)
    refused(tmp_path, f"{file.name}: expected a picture of (64, 48) as the first, got (48, 64)")


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
