"""What is written is read again as it was."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_data import HEIGHT, WIDTH, runs, write_images, write_rendered

from training.data.clips import KINDS, Clip, Person, Sighting
from training.data.pictures import ImageFiles
from training.data.reading import read
from training.data.writers import coco, mot, yolo
from training.errors import InputError

FRAMES = 2


@st.composite
def boxes(draw):
    x0 = draw(st.floats(0, WIDTH - 1, width=32))
    y0 = draw(st.floats(0, HEIGHT - 1, width=32))
    width = draw(st.floats(0.25, WIDTH - x0))
    height = draw(st.floats(0.25, HEIGHT - y0))
    return (x0, y0, x0 + width, y0 + height)


@st.composite
def clips(draw):
    """A tracked clip of two frames: some of its people and objects in each."""
    kinds = draw(
        st.dictionaries(st.integers(0, 99), st.sampled_from(KINDS), min_size=1, max_size=6)
    )
    people = {}
    for object_id, kind in kinds.items():
        if kind in {"player", "goalkeeper"}:
            team = draw(st.sampled_from(("left", "right")))
            number = draw(st.none() | st.integers(0, 99))
            people[object_id] = Person(object_id, kind, team, number)
        elif kind not in {"ball", "object"}:
            people[object_id] = Person(object_id, kind, None, None)
    frames = []
    for index in range(FRAMES):
        seen = draw(st.sets(st.sampled_from(sorted(kinds)), min_size=0 if index else 1))
        found = [(i, draw(boxes())) for i in sorted(seen)]
        frames.append(tuple(Sighting(i, kinds[i], box, box) for i, box in found))
    shown = {s.object_id for frame in frames for s in frame}
    people = {i: person for i, person in people.items() if i in shown}
    return Clip(
        "match_1", WIDTH, HEIGHT, 29.97, people, tuple(frames), ImageFiles(()), True, "match 1"
    )


def written(writer, clip):
    with tempfile.TemporaryDirectory() as folder:
        files = tuple(Path(folder) / f"{index}.png" for index in range(FRAMES))
        write_images(Path(folder), [file.name for file in files])
        clip = replace(clip, pictures=ImageFiles(files))
        writer.write({"train": [clip]}, Path(folder) / "out", 1)
        (again,) = read(Path(folder) / "out")
        assert len(list(again.frames())) == FRAMES
        return again


def assert_same_boxes(clip, again, tolerance):
    for before, after in zip(clip.sightings, again.sightings, strict=True):
        assert [s.kind for s in before] == [s.kind for s in after]
        for old, new in zip(before, after, strict=True):
            assert new.box_visible == pytest.approx(old.box_visible, abs=tolerance)


def ids(clip):
    return [[s.object_id for s in frame] for frame in clip.sightings]


@settings(max_examples=30, deadline=None)
@given(clips())
def test_coco_keeps_boxes_kinds_and_ids(clip):
    again = written(coco, clip)
    assert_same_boxes(clip, again, 1e-9)
    assert ids(again) == ids(clip)
    assert again.is_tracked
    assert {i: p.kind for i, p in again.people.items()} == {
        i: p.kind for i, p in clip.people.items()
    }


@settings(max_examples=30, deadline=None)
@given(clips())
def test_yolo_keeps_boxes_and_kinds(clip):
    assert_same_boxes(clip, written(yolo, clip), 1e-6)


@settings(max_examples=30, deadline=None)
@given(clips())
def test_mot_keeps_boxes_ids_roles_teams_and_numbers(clip):
    again = written(mot, clip)
    assert_same_boxes(clip, again, 1e-6)
    assert ids(again) == ids(clip)
    assert again.people == clip.people
    assert (again.name, again.frame_rate) == ("match_1", 29.97)


def test_coco_keeps_masks_and_the_clip_of_each_frame(tmp_path):
    (tmp_path / "in").mkdir()
    write_rendered(tmp_path / "in")
    (clip,) = read(tmp_path / "in")
    coco.write({"train": [clip]}, tmp_path / "out", 2)
    (again,) = read(tmp_path / "out")
    assert (again.name, len(again.sightings)) == ("a", 2)
    assert again.mask_runs[1] == {1: runs()}
    assert again.sightings[1][0].visible_px == 220


def test_the_same_classes_have_the_same_numbers_in_all_splits(tmp_path):
    write_rendered(tmp_path)
    (clip,) = read(tmp_path)
    only_ball = replace(clip, sightings=tuple(f[2:] for f in clip.sightings))
    coco.write({"train": [clip], "valid": [only_ball]}, tmp_path / "coco", 1)
    kinds = {c.name: {s.kind for s in c.sightings[0]} for c in read(tmp_path / "coco" / "valid")}
    assert kinds == {"a": {"ball"}}


def test_stills_cannot_become_tracks(tmp_path):
    stills = Clip("s", WIDTH, HEIGHT, None, {}, ((),), ImageFiles(()), False, "s")
    with pytest.raises(InputError, match="s: expected a tracked video"):
        mot.write({"train": [stills]}, tmp_path, 1)
