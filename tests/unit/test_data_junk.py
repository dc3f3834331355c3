"""Junk anywhere in a data set makes a check tell problems, and never fail otherwise."""

import json

import numpy as np
import pytest
from tiny_data import (
    coco_file,
    gsr_file,
    rendered_masks,
    rendered_truth,
    write_coco,
    write_gsr,
    write_json,
    write_mot,
    write_rendered,
    write_soccernet,
    write_yolo,
)

from tests.unit.damaged_data import read_whole, setting
from training.data.reading import check
from training.errors import InputError

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
