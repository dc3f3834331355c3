"""Sound data sets of every format are recognised, and read into what their labels say."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from tiny_data import (
    BOX,
    FRAMES,
    HEIGHT,
    SEQINFO,
    WIDTH,
    WRITERS,
    mask,
    write_coco,
    write_images,
    write_mot,
)

from training.data.labels import kind_of
from training.data.reading import check, read, recognise
from training.errors import InputError


@pytest.fixture(params=WRITERS)
def named_set(request, tmp_path):
    return request.param, WRITERS[request.param](tmp_path)


def test_every_format_is_recognised_and_sound(named_set):
    name, path = named_set
    assert recognise(path) == name
    clips, problems = check(path)
    assert problems.messages == []
    assert [clip.name for clip in clips] == [clip.name for clip in read(path)]


def test_pictures_are_as_many_and_as_large_as_the_clip_says(named_set):
    for clip in read(named_set[1]):
        pictures = list(clip.frames())
        assert len(pictures) == len(clip.sightings)
        assert {p.shape for p in pictures} == {(HEIGHT, WIDTH, 3)}
        picked = list(clip.frames([len(pictures) - 1]))
        assert len(picked) == 1
        assert (picked[0] == pictures[-1]).all()


def test_rendered_truth_is_read_whole(tmp_path):
    (clip,) = read(WRITERS["rendered"](tmp_path))
    assert (clip.name, clip.frame_rate, clip.source) == ("a", 25, "seed 7")
    assert clip.kits == {"plain [1, 2, 3] None", "stripes [4, 5, 6] [7, 8, 9]"}
    player, referee, ball = clip.sightings[2]
    assert player.box_visible == tuple(BOX)
    assert player.pitch == (1.0, 2.0)
    assert player.is_number_readable
    assert referee.box_visible is None
    assert ball.is_ball
    assert ball.pitch == (3.0, 4.0)
    assert clip.people[1].jersey_number == 10
    assert (clip.masks(1)[1] == mask()).all()
    assert (clip.homographies[0] == np.eye(3)).all()


def test_coco_stills_of_one_source_make_one_clip_without_identities(tmp_path):
    first, second = read(write_coco(tmp_path))
    assert (first.name, len(first.sightings)) == ("match_a", 2)
    assert (second.name, len(second.sightings)) == ("match_b", 1)
    player, ball = first.sightings[0]
    assert player.box_visible == (10, 8, 20, 30)
    assert player.visible_px == 220
    assert (first.masks(0)[player.object_id] == mask()).all()
    assert ball.is_ball
    assert (ball.visible_px, ball.pitch, ball.number_span) == (None, None, None)
    assert (first.frame_rate, first.people, first.is_tracked) == (None, {}, False)
    assert not second.has_masks


def test_stills_of_one_source_in_train_and_valid_are_one_clip(tmp_path):
    write_coco(tmp_path)
    (tmp_path / "train").rename(tmp_path / "valid")
    write_coco(tmp_path)
    clips, problems = check(tmp_path)
    assert problems.messages == []
    assert [(clip.name, len(clip.sightings)) for clip in clips] == [("match_a", 4), ("match_b", 2)]


def test_yolo_shares_become_pixels_and_polygons_become_masks(tmp_path):
    (clip,) = read(WRITERS["yolo"](tmp_path))
    player, ball, outlined = clip.sightings[0]
    assert player.box_visible == pytest.approx((9.6, 14.4, 22.4, 33.6))
    assert (player.kind, ball.kind, outlined.kind) == ("player", "ball", "player")
    assert outlined.box_visible == pytest.approx((6.4, 4.8, 25.6, 24.0))
    assert clip.masks(0)[2].sum() == outlined.visible_px > 0
    assert clip.sightings[1] == ()


def test_mot_rows_not_considered_are_left_out(tmp_path):
    (clip,) = read(write_mot(tmp_path))
    assert [[s.object_id for s in frame] for frame in clip.sightings] == [[1], [1, 2], []]
    assert clip.sightings[1][1].box_visible == (40, 8, 70, 30)
    assert clip.people[1].kind == "person"
    assert (clip.people[1].team, clip.people[1].jersey_number) == (None, None)


def test_soccernet_tracklets_have_roles_teams_and_numbers(tmp_path):
    (clip,) = read(WRITERS["soccernet-tracking"](tmp_path))
    found = {i: (p.kind, p.team, p.jersey_number) for i, p in clip.people.items()}
    assert found == {
        1: ("player", "left", 10),
        2: ("goalkeeper", "right", None),
        4: ("assistant_referee", None, None),
    }
    assert clip.sightings[0][1].is_ball
    assert clip.source == "game 9"


def test_game_state_positions_point_away_from_the_camera(tmp_path):
    (clip,) = read(WRITERS["soccernet-gsr"](tmp_path))
    player, ball = clip.sightings[1]
    assert player.pitch == (-20.5, 30.0)
    assert clip.people[1].jersey_number == 10
    assert clip.people[1].team == "left"
    assert ball.is_ball
    assert 2 not in clip.people
    assert (clip.frame_rate, clip.source) == (25, "game 4")


def test_davis_indices_become_masks_and_void_does_not(tmp_path):
    (clip,) = read(WRITERS["davis"](tmp_path))
    assert [[s.object_id for s in frame] for frame in clip.sightings] == [[1], [2], [3]]
    for index in range(FRAMES):
        assert (clip.masks(index)[index + 1] == mask()).all()
    assert clip.sightings[0][0].box_visible == tuple(BOX)
    assert clip.sightings[0][0].kind == "object"


def test_one_clip_of_a_folder_can_be_named_by_its_video(tmp_path):
    WRITERS["rendered"](tmp_path)
    WRITERS["rendered"](tmp_path, name="b")
    assert [clip.name for clip in read(tmp_path)] == ["a", "b"]
    assert [clip.name for clip in read(tmp_path / "b.mp4")] == ["b"]


def test_a_file_is_what_it_is_whatever_lies_beside_it(tmp_path):
    WRITERS["coco"](tmp_path)
    WRITERS["mot"](tmp_path)
    file = next(tmp_path.rglob("*.coco.json"))
    assert recognise(file) == "coco"
    assert [recognise(tmp_path / "seq" / name) for name in ("seqinfo.ini", "gt/gt.txt")] == [
        "mot",
        "mot",
    ]


def test_nothing_an_unknown_layout_and_two_layouts_are_refused(tmp_path):
    with pytest.raises(InputError, match="expected labelled footage, found nothing"):
        recognise(tmp_path / "absent")
    with pytest.raises(InputError, match="found none"):
        recognise(tmp_path)
    WRITERS["rendered"](tmp_path)
    WRITERS["yolo"](tmp_path)
    with pytest.raises(InputError, match="found rendered and yolo"):
        recognise(tmp_path)


@pytest.mark.parametrize(
    ("name", "folder"), [("mot", "seq"), ("soccernet-gsr", "SNGS-1"), ("davis", "Annotations/480p")]
)
def test_clips_behind_links_are_found_and_a_link_to_itself_ends(tmp_path, name, folder):
    WRITERS[name](tmp_path / "set")
    inside = tmp_path / "set" / folder
    inside.rename(tmp_path / "élsewhere on a disk")
    inside.symlink_to(tmp_path / "élsewhere on a disk")
    (tmp_path / "élsewhere on a disk" / "again").symlink_to(tmp_path / "set")
    (clip,) = read(tmp_path / "set")
    assert len(list(clip.frames())) == FRAMES


def test_pictures_are_ordered_by_their_numbers_and_not_by_their_letters(tmp_path):
    folder = tmp_path / "seq"
    write_mot(tmp_path, SEQINFO.replace(f"seqLength={FRAMES}", "seqLength=10"))
    shutil.rmtree(folder / "img1")
    write_images(folder / "img1", [f"{number}.png" for number in range(1, 11)])
    (clip,) = read(tmp_path)
    assert [picture[0, 0, 0] for picture in clip.frames()] == [40 + 20 * i for i in range(10)]


def test_a_clip_with_fewer_pictures_than_frames_says_so(tmp_path):
    (clip,) = read(WRITERS["rendered"](tmp_path))
    longer = replace(clip, sightings=(*clip.sightings, ()))
    for indices in (None, [1, FRAMES]):
        with pytest.raises(InputError, match=r"a: expected a picture for frame 3, found none"):
            list(longer.frames(indices))


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("Goal_Keeper", "goalkeeper"),
        ("goalkeepers team left", "goalkeeper"),
        ("side referee", "assistant_referee"),
        (" Ball ", "ball"),
        ("car", None),
    ],
)
def test_labels_are_understood_as_people_write_them(label, kind):
    assert kind_of(label) == kind
