"""Tiles keep the ball in sight, name people as asked, and are written whole."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from training.data.footage import read_clip
from training.data.writers import coco
from training.detector.dataset import ANNOTATIONS, CocoFolder, write_tiles
from training.detector.tiles import (
    BALL_SIDE_720,
    LABELS,
    ROLE_LABELS,
    Recipe,
    Region,
    Target,
    cut,
    draw_ball_region,
    frame_targets,
    plain_tiles,
)
from training.run.config import Split

DATA = Path(__file__).parents[1] / "data"
PICTURE = np.zeros((720, 1280, 3), np.uint8)


@pytest.mark.parametrize("centre", [(4, 4), (1276, 716), (640, 360), (10, 700)])
def test_a_crop_round_the_ball_holds_it_and_stays_in_the_picture(centre):
    rng = np.random.default_rng(0)
    x, y = centre
    ball = Target("ball", (x - 3.0, y - 3.0, x + 3.0, y + 3.0), 30)
    for _ in range(50):
        region = draw_ball_region(PICTURE, ball, rng)
        assert 0 <= region.x <= 1280 - region.width
        assert 0 <= region.y <= 720 - region.height
        _, kept = cut(PICTURE, [ball], region)
        assert [target.label for target in kept] == ["ball"]


@pytest.mark.parametrize("resolution", [416, 512])
def test_a_small_ball_is_grown_to_the_same_share_of_any_tile(resolution):
    ball = Target("ball", (300.0, 300.0, 306.0, 306.0), 30)
    _, (kept,) = cut(PICTURE, [ball], Region(0, 0, 720, 720), resolution)
    x0, y0, x1, y1 = kept.box
    assert (x1 - x0) * 720 / resolution == pytest.approx(BALL_SIDE_720)
    assert ((x0 + x1) / 2 * 720 / resolution, y1 - y0) == pytest.approx((303.0, x1 - x0))


def test_people_are_named_by_role_only_where_the_labels_have_roles():
    sightings = read_clip(DATA, "demo_01").sightings[0]
    assert {target.label for target in frame_targets(sightings)} <= set(LABELS)
    roles = {target.label for target in frame_targets(sightings, ROLE_LABELS)}
    assert {"player", "referee"} <= roles <= set(ROLE_LABELS)


def test_plain_tiles_are_of_the_asked_side():
    clip = read_clip(DATA, "demo_01")
    tiles = list(plain_tiles(clip, 75, LABELS, 96))
    assert [tile.shape for tile, _ in tiles] == [(96, 96, 3)] * 4
    assert any(targets for _, targets in tiles)


def test_a_written_split_is_complete_or_absent(tmp_path):
    folder = CocoFolder(tmp_path / "train", LABELS)
    folder.add(np.full((32, 32, 3), 9, np.uint8), [Target("ball", (1.0, 2.0, 5.0, 8.0), 20)])
    assert not (tmp_path / "train" / ANNOTATIONS).exists()
    folder.close()
    content = json.loads((tmp_path / "train" / ANNOTATIONS).read_text())
    assert [one["name"] for one in content["categories"]] == list(LABELS)
    (annotation,) = content["annotations"]
    assert (annotation["category_id"], annotation["bbox"]) == (1, [1.0, 2.0, 4.0, 6.0])
    assert cv2.imread(str(tmp_path / "train" / "000000.jpg")).shape == (32, 32, 3)


def test_a_complete_split_is_not_cut_again(tmp_path):
    for split in ("train", "valid"):
        CocoFolder(tmp_path / split, LABELS).close()
    clips = Split(train=("nowhere",), held_out=("nowhere else",))
    write_tiles(DATA, tmp_path, clips=clips, labels=LABELS, recipe=Recipe(), resolution=64, seed=0)
    assert sorted(path.name for path in tmp_path.rglob("*.jpg")) == []


def test_stills_without_masks_are_cut_too(tmp_path):
    clip = read_clip(DATA, "demo_01")
    stills = tmp_path / "stills"
    few = replace(clip, sightings=clip.sightings[:2])
    coco.write({"train": [few]}, stills, 1)
    write_tiles(
        DATA,
        tmp_path / "tiles",
        clips=Split.model_construct(train=(), held_out=()),
        labels=LABELS,
        recipe=Recipe(still_crops=3),
        resolution=64,
        seed=0,
        stills=stills,
    )
    content = json.loads((tmp_path / "tiles" / "train" / ANNOTATIONS).read_text())
    assert len(content["images"]) == 2 * (2 + 3)
    assert len(content["annotations"]) > 50
    assert (tmp_path / "tiles" / "train" / "000009.jpg").is_file()
