"""Person crops of clips whose truth leaves something out."""

import dataclasses
import gzip
import itertools
import json
import tracemalloc

import numpy as np
import pytest

from tests.unit.tiny_footage import write_footage
from training.data import crops
from training.data.crops import CropSet, crop_set
from training.data.footage import read_clip
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


def test_crops_that_break_off_leave_nothing_behind(footage, tmp_path):
    crop_set(footage, ("clip_0",), tmp_path / "crops")
    whole = sorted(path.name for path in (tmp_path / "crops").iterdir())
    assert whole == sorted(f"{field.name}.npy" for field in dataclasses.fields(CropSet))
    changed(footage, lambda truth: truth["kit_colours"].pop("right"))
    with pytest.raises(InputError, match="kit_colours"):
        crop_set(footage, ("clip_1", "clip_0"), tmp_path / "broken")
    assert list((tmp_path / "broken").iterdir()) == []


def test_crops_of_a_long_clip_are_not_gathered_in_memory(footage, tmp_path, monkeypatch):
    (row,) = itertools.islice(crops._clip_rows(read_clip(footage, "clip_0"), 0, {}), 1)

    def many(*_):
        tracemalloc.reset_peak()  # of reading the labels
        for number in range(1000):
            yield {**row, "pixels": row["pixels"].copy(), "track": np.int32(number)}

    monkeypatch.setattr(crops, "_clip_rows", many)
    tracemalloc.start()
    found = crop_set(footage, ("clip_0",), tmp_path / "crops")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.pixels.shape == (1000, *row["pixels"].shape)
    assert found.track.tolist() == list(range(1000))
    assert (found.pixels[999] == row["pixels"]).all()
    assert peak < found.pixels.nbytes / 4


def test_a_clip_without_masks_is_named_and_not_left_out(footage, tmp_path):
    (footage / "clip_1.masks.json.gz").unlink()
    with pytest.raises(InputError, match="clip_1: expected masks"):
        crop_set(footage, ("clip_0", "clip_1"), tmp_path / "crops")
