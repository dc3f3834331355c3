"""Person crops of clips whose truth leaves something out."""

import gzip
import json

import pytest

from tests.unit.tiny_footage import write_footage
from training.data.crops import crop_set
from training.errors import InputError


def changed(footage, change):
    path = footage / "clip_0.gt.json.gz"
    with gzip.open(path) as file:
        truth = json.load(file)
    change(truth)
    with gzip.open(path, "wt") as file:
        json.dump(truth, file)
    return footage


@pytest.fixture
def footage(tmp_path):
    return write_footage(tmp_path / "footage", clips=2)


def test_nothing_need_be_drawn_over_the_picture(footage, tmp_path):
    expected = len(crop_set(footage, ("clip_0",), tmp_path / "before"))
    changed(footage, lambda truth: truth.pop("overlay_boxes"))
    assert len(crop_set(footage, ("clip_0",), tmp_path / "after")) == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda kits: kits.pop("left"),
        lambda kits: kits["left"].pop("shorts"),
        lambda kits: kits["left"].update(pattern="tartan"),
        lambda kits: kits["left"].update(shirt=[1, 2]),
    ],
)
def test_a_kit_that_is_half_told_is_named(footage, tmp_path, change):
    changed(footage, lambda truth: change(truth["kit_colours"]))
    with pytest.raises(InputError, match=r"clip_0: kit_colours\.left: expected one colour, or pat"):
        crop_set(footage, ("clip_0",), tmp_path / "crops")


def test_a_clip_without_masks_is_named_and_not_left_out(footage, tmp_path):
    (footage / "clip_1.masks.json.gz").unlink()
    with pytest.raises(InputError, match="clip_1: expected masks"):
        crop_set(footage, ("clip_0", "clip_1"), tmp_path / "crops")
