"""The stand-ins: marks survive, answers are the recorded truth, time follows the tables."""

import gzip
import json

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from sam2_streaming.effort import FULL_EFFORT
from sam2_streaming.requests import InvalidRequestError, StepRequest
from sam2_streaming.slots import SlotsExhaustedError, UnknownSequenceError
from touchline_sim import pace
from touchline_sim.following import RecordedTracker
from touchline_sim.kits import KITS, embed_person, embed_text, nearest_kit
from touchline_sim.marks import (
    MAX_PERSON_ID,
    SHIRT,
    mean_colour,
    person_colour,
    read_number,
    read_person,
)
from touchline_sim.record import RECORD, load_record

from orchestrator.contracts import CONTRACTS, KIT_COLOURS
from orchestrator.imaging import crops, resized
from tests.load.pictures import MatchPictures

NUMBERS = (0, 1, 57, 149, 297)


@pytest.fixture(scope="module")
def pictures():
    return MatchPictures()


def decoded(pictures, number):
    encoded = np.frombuffer(pictures.jpeg(number), np.uint8)
    return cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def test_the_recording_is_the_truth_of_the_demo_clip(clip):
    truth = json.loads(gzip.decompress(clip.with_suffix(".gt.json.gz").read_bytes()))
    stored = json.loads(RECORD.read_text())
    assert [person["id"] for person in stored["people"]] == [p["id"] for p in truth["people"]]
    assert [p["number"] for p in stored["people"]] == [p["jersey_number"] for p in truth["people"]]
    for kept, frame in zip(stored["frames"], truth["frames"], strict=True):
        boxes = {seen["id"]: seen["box_visible"] for seen in frame["objects"]}
        assert kept["ball"] == boxes.pop(truth["ball_id"], None)
        large = {k: b for k, b in boxes.items() if b and b[2] - b[0] >= 6 and b[3] - b[1] >= 12}
        assert {row[0]: row[1:] for row in kept["people"]} == large


def test_the_match_goes_on_for_ever_without_a_jump():
    record = load_record()
    for number in range(record.period, 2 * record.period):
        before, after = record.scene(number - 1), record.scene(number)
        _, a, b = np.intersect1d(before.person_ids, after.person_ids, return_indices=True)
        assert len(a) >= 0.8 * len(before.person_ids)
        assert np.median(np.abs(before.boxes[a] - after.boxes[b])) < 0.02


@pytest.mark.parametrize("size", [(360, 640), (192, 192), (576, 576), (720, 1280)])
def test_a_frame_s_number_survives_jpeg_and_resizing(pictures, size):
    for number in NUMBERS:
        assert read_number(resized(decoded(pictures, number), *size)) == number


def test_foreign_pictures_have_no_number(pictures):
    assert read_number(np.zeros((64, 64, 3), np.uint8)) is None
    assert read_number(np.full((64, 64, 3), 255, np.uint8)) is None
    assert read_number(pictures.rgb(3)[180:]) is None


def test_people_are_told_by_their_colours():
    for person_id in range(1, MAX_PERSON_ID + 1):
        crop = np.full((20, 8, 3), person_colour(person_id), np.uint8)
        assert read_person(crop) == person_id


def test_crops_of_jpeg_frames_show_person_and_kit(pictures):
    record = load_record()
    right = seen = 0
    for number in NUMBERS:
        scene, pixels = record.scene(number), decoded(pictures, number)
        boxes = scene.boxes * np.array([640, 360, 640, 360], np.float32)
        for height, width in ((32, 32), (128, 64)):
            for person_id, crop in zip(
                scene.person_ids.tolist(), crops(pixels, boxes, height, width), strict=True
            ):
                shirt = np.array(record.people[person_id].shirt, np.float64)
                seen += 1
                right += read_person(crop) == person_id and nearest_kit(
                    mean_colour(crop, SHIRT)
                ) == nearest_kit(shirt)
    assert right >= 0.8 * seen  # the others stand behind somebody


def test_grass_is_nobody(pictures):
    assert read_person(pictures.rgb(0)[40:60, 20:30]) is None


def test_embeddings_tell_kits_apart_and_know_their_names():
    assert tuple(KITS) == KIT_COLOURS
    blue, yellow = (list(KITS).index(name) for name in ("blue", "yellow"))
    mate, other = embed_person(blue, 3, 64), embed_person(blue, 4, 64)
    assert mate @ other > 0.9
    assert mate @ embed_person(yellow, 3, 64) < 0.1
    assert mate @ embed_text("Blue shirts, white shorts", 64) > mate @ embed_text("yellow", 64)
    assert np.linalg.norm(embed_text("nothing known", 64)) == pytest.approx(1)


def test_every_profile_has_a_table_for_every_model():
    for profile, tables in pace.load_tables().items():
        assert set(tables) == {contract.name for contract in CONTRACTS}, profile


def test_what_nobody_measured_is_not_called_measured():
    rows = [
        (profile, model, row)
        for profile, tables in pace.load_tables().items()
        for model, table in tables.items()
        for row in table.rows
    ]
    measured = [(profile, model) for profile, model, row in rows if row.basis == "measured"]
    assert measured == [("t4", "rfdetr_detector")]
    assert {row.basis for profile, _, row in rows if profile == "bench"} == {"chosen"}
    assert all(row.source for *_, row in rows)


def test_time_lies_between_the_rows_and_grows_beyond_them():
    table = pace.Pace(tuple(pace.Row(b, ms, "chosen", "a test") for b, ms in ((2, 10), (4, 30))))
    seconds = [table.seconds(batch) for batch in (0, 1, 2, 3, 4, 8)]
    assert seconds == pytest.approx([0, 0.01, 0.01, 0.02, 0.03, 0.06])


def test_unknown_profiles_are_named():
    with pytest.raises(ValueError, match="profile: expected one of h200, a100, l4, t4, bench"):
        pace.load("h100", "sam2_tracker")


@pytest.fixture
def tracker():
    instant = pace.Pace((pace.Row(1, 0.0, "chosen", "a test"),))
    return RecordedTracker(load_record(), instant, slots=2, ttl_s=60, effort=FULL_EFFORT)


def truth(number):
    scene = load_record().scene(number)
    boxes = scene.boxes * np.array([640, 360, 640, 360], np.float32)
    return dict(zip(scene.person_ids.tolist(), boxes, strict=True))


def step(tracker, pictures, sequence_id, number, **request):
    answer = tracker.step_many([StepRequest(sequence_id, pictures.rgb(number), **request)])[0]
    if isinstance(answer, Exception):
        raise answer
    return answer


def prompts(boxes, *people):
    return {
        "prompt_object_ids": np.array([100 + person for person in people]),
        "prompt_boxes": np.stack([boxes[person] for person in people]),
    }


def test_the_tracker_follows_whom_it_was_shown(tracker, pictures):
    tracker.start(7)
    people = sorted(truth(0))[:3]
    step(tracker, pictures, 7, 0, **prompts(truth(0), *people))
    for number in range(1, 40):
        answer = step(tracker, pictures, 7, number)
        assert answer.object_ids.tolist() == [100 + person for person in people]
        for person, box, score, counts in zip(
            people, answer.boxes, answer.scores, answer.masks, strict=True
        ):
            if person not in truth(number):
                assert (score, box.any()) == (0, False)
                continue
            assert np.abs(box - truth(number)[person]).max() <= 0.5
            mask = {"size": [360, 640], "counts": counts.encode()}
            assert coco_mask.area(mask) == (box[2] - box[0]) * (box[3] - box[1])


def test_a_budget_leaves_objects_to_their_motion(tracker, pictures):
    tracker.start(7)
    people = sorted(truth(0))[:4]
    step(tracker, pictures, 7, 0, **prompts(truth(0), *people))
    answer = step(tracker, pictures, 7, 1, max_observed=1)
    assert answer.observed.sum() == 1
    assert answer.scores[~answer.observed].max() < answer.scores[answer.observed].min()


def test_forgotten_objects_are_gone_and_foreign_pictures_show_nobody(tracker, pictures):
    tracker.start(7)
    one, other = sorted(truth(0))[:2]
    step(tracker, pictures, 7, 0, **prompts(truth(0), one, other))
    answer = step(tracker, pictures, 7, 1, forget_object_ids=np.array([100 + one]))
    assert answer.object_ids.tolist() == [100 + other]
    blank = StepRequest(7, np.zeros((360, 640, 3), np.uint8))
    assert tracker.step_many([blank])[0].scores.tolist() == [0.0]


def test_slots_are_counted_and_bad_requests_refused_as_in_production(tracker, pictures):
    tracker.start(1)
    tracker.start(2)
    with pytest.raises(SlotsExhaustedError, match="all 2 sequence slots"):
        tracker.start(3)
    tracker.end(1)
    tracker.start(3)
    assert (tracker.usage().sequences, tracker.usage().slots) == (2, 2)
    with pytest.raises(UnknownSequenceError, match="send START"):
        step(tracker, pictures, 1, 0)
    with pytest.raises(InvalidRequestError, match="max_observed: expected 0 or more"):
        step(tracker, pictures, 3, 0, max_observed=-1)
    outside = np.array([[700, 10, 720, 40]], np.float32)
    with pytest.raises(InvalidRequestError, match="prompt_boxes"):
        step(tracker, pictures, 2, 0, prompt_object_ids=np.array([1]), prompt_boxes=outside)
