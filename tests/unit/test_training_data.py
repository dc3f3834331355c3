"""Footage is read strictly; training pictures and their truth move together."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.imaging import square_tiles
from training.data.footage import Person, read_clip
from training.data.kits import recolour
from training.detector.tiles import RESOLUTION, Region, Target, cut, tile_regions

DATA = Path(__file__).parents[1] / "data"


def test_a_clip_is_read_with_people_boxes_and_numbers():
    clip = read_clip(DATA, "demo_01")
    assert len(clip.sightings) == 150
    assert {p.kind for p in clip.people.values()} == {
        "player",
        "goalkeeper",
        "referee",
        "assistant_referee",
    }
    assert any(seen.is_number_readable for frame in clip.sightings for seen in frame)
    assert next(clip.frames()).shape == (720, 1280, 3)


def test_truth_in_another_form_is_refused_naming_file_and_field(tmp_path):
    path = tmp_path / "x.gt.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"people": [{"id": 1}], "frames": []}).encode()))
    with pytest.raises(ValueError, match=r"x\.gt\.json\.gz: top level: expected field 'width'"):
        read_clip(tmp_path, "x")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**16))
def test_new_kits_stay_inside_the_masks(seed):
    rng = np.random.default_rng(seed)
    picture = rng.integers(60, 190, (80, 60, 3), np.uint8)
    before = picture.copy()
    mask = np.zeros((80, 60), np.uint8)
    mask[10:70, 20:40] = 1
    person = Person(5, "player", "left", 7)
    dressed = recolour(picture, {5: mask}, {5: person}, rng)
    assert (picture == before).all()
    assert dressed.shape == picture.shape
    change = (dressed.astype(int) - picture)[mask == 0]
    # Relighting changes the whole picture smoothly; a kit would change single pixels at random.
    ratio = (dressed[mask == 0] + 1.0) / (picture[mask == 0] + 1.0)
    assert (change == 0).all() or ratio.std(axis=0).max() < 0.05


@settings(max_examples=60, deadline=None)
@given(st.integers(-100, 300), st.integers(-150, 150), st.integers(150, 700), st.integers(150, 700))
def test_a_box_stays_on_its_person_through_any_crop(x, y, width, height):
    picture = np.zeros((360, 640, 3), np.uint8)
    box = (200.0, 120.0, 240.0, 220.0)
    picture[120:220, 200:240] = 255
    tile, targets = cut(picture, [Target("person", box, 4000)], Region(x, y, width, height))
    assert tile.shape == (RESOLUTION, RESOLUTION, 3)
    for target in targets:
        x0, y0, x1, y1 = target.box
        inside = tile[int(np.ceil(y0)) : int(y1), int(np.ceil(x0)) : int(x1), 0]
        assert not inside.size or (inside > 127).mean() > 0.9
        assert (tile[:, :, 0] == 255).sum() <= (x1 - x0 + 2) * (y1 - y0 + 2)


def test_training_and_serving_cut_the_same_tiles():
    _, served = square_tiles(np.zeros((720, 1280, 3), np.uint8), 2, 416)
    trained = [(r.x, r.y, r.x + r.width, r.y + r.height) for r in tile_regions(1280, 720)]
    assert served.tolist() == [list(map(float, region)) for region in trained]
