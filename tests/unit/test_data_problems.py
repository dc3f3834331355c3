"""A check finds all problems of all clips, and keeps what is sound."""

from tiny_data import MOT_ROWS, rendered_truth, write_coco, write_mot, write_rendered, write_yolo

from tests.unit.damaged_data import refused
from training.data.problems import LIMIT, Problems
from training.data.reading import check
from training.errors import InputError


def test_a_set_without_a_frame_is_refused(tmp_path):
    coco, yolo = tmp_path / "coco", tmp_path / "yolo"
    write_coco(coco, {"images": [], "annotations": [], "categories": []})
    refused(coco, f"{coco}: expected at least one frame, found none")
    for picture in (write_yolo(yolo) / "train" / "images").iterdir():
        picture.unlink()
    (yolo / "train" / "labels" / "game-1.txt").unlink()
    refused(yolo, f"{yolo}: expected at least one frame, found none")


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
