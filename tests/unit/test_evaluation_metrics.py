"""Perfect results get perfect figures; each damage moves its own figures, by what it should."""

import math
from dataclasses import replace

import pytest

from tests.unit import synthetic_match as match
from tests.unit.evaluated_match import FIGURES, PEOPLE, assert_moved, figures, flat, loaded
from training.evaluation import scores


def test_perfect_results_get_perfect_figures(tmp_path):
    assert_moved(figures(tmp_path, match.perfect()), {})


def test_players_on_ignored_people_are_not_held_against_a_run(tmp_path):
    def add(recognition):
        index = int(recognition["frame_index"])
        x0, y0, x1, y1 = map(float, match.place(match.IGNORED, index))
        box = {"x_min": x0, "y_min": y0, "x_max": x1, "y_max": y1}
        said = {"role": "ROLE_REFEREE", "jersey_number": 77, "confidence": 1.0}
        recognition["players"].append({"track_id": "99", "box": box, **said})

    assert figures(tmp_path, match.damaged(add)) == figures(tmp_path, match.perfect())


def test_shifted_boxes_cost_what_their_overlap_says(tmp_path):
    def shift(recognition):
        for player in recognition["players"]:
            match.move(player["box"], right=2)

    got = figures(tmp_path, match.damaged(shift))
    overlap = 10 / 14  # COCO's thresholds to 0.70 are 5 of 10, TrackEval's 14 of 19
    assert_moved(
        got,
        {
            "detection.person.ap": 0.5,
            "detection.mean_iou": overlap,
            "tracking.hota": 14 / 19,
            "tracking.deta": 14 / 19,
            "tracking.assa": 14 / 19,  # GS-HOTA does not mind: 2 px are 0.5 m
        },
    )
    assert got["tracking.deta_loss.localisation"] == pytest.approx(5 / 19, abs=1e-4)
    assert got["tracking.deta_loss.misses"] == got["tracking.deta_loss.false_positives"] == 0


def test_the_game_state_measures_metres(tmp_path):
    def sink(recognition):
        for player in recognition["players"]:
            match.move(player["box"], down=4)

    got = figures(tmp_path, match.damaged(sink))
    # 1 m off: exp(ln(0.05) / 25) = 0.887 reaches 17 of 19 thresholds, IoU 20/28 only 14.
    assert got["game_state.gs_hota"] == pytest.approx(17 / 19, abs=1e-4)
    assert got["tracking.hota"] == pytest.approx(14 / 19, abs=1e-4)


def test_eroded_masks_cost_region_by_their_area(tmp_path):
    def erode(recognition):
        for player in recognition["players"]:
            x0, y0, x1, y1 = match.place(int(player["track_id"]), int(recognition["frame_index"]))
            player["mask"]["rle_counts"] = match.rle((x0 + 1, y0 + 1, x1 - 1, y1 - 1))

    region = 10 * 22 / (12 * 24)  # contours 1 px apart are within F's reach
    assert_moved(
        figures(tmp_path, match.damaged(erode)), {"masks.j": region, "masks.j_of_all": region}
    )


def test_masks_that_do_not_fill_the_picture_count_as_empty(tmp_path):
    def overfill(recognition):
        recognition["players"][0]["mask"]["rle_counts"] = "oooooooo7"

    share = 1 - 1 / PEOPLE
    got = figures(tmp_path, match.damaged(overfill))
    assert_moved(got, {"masks.j": share, "masks.j_of_all": share, "masks.f": share})


def test_a_ball_9_px_off_is_found_within_16_only(tmp_path):
    responses = match.damaged(lambda r: match.move(r["ball"]["box"], down=9))
    zero = ("detection.ball.ap50", "ball.recall.4", "ball.recall.8", "ball.precision.8")
    assert_moved(figures(tmp_path, responses), dict.fromkeys(zero, 0.0))


@pytest.mark.parametrize(("pixels", "visible"), [(0, 19), (7, 19), (8, 20)])
def test_a_ball_all_but_hidden_is_not_asked_for(tmp_path, pixels, visible):
    run, clip = loaded(tmp_path, match.damaged(lambda r: match.move(r["ball"]["box"], down=20)))
    first = tuple(
        replace(seen, visible_px=pixels, box_visible=seen.box_visible if pixels else None)
        if seen.is_ball
        else seen
        for seen in clip.sightings[0]
    )
    metrics = scores.evaluate([(run, replace(clip, sightings=(first, *clip.sightings[1:])))])
    ball = metrics["pooled"]["ball"]
    # A ball said where none at all is seen is wrong; where a corner of it is seen, it is not asked.
    assert (ball["visible"], ball["said"]) == (visible, 19 if pixels == 7 else 20)


def test_missing_frames_are_missed_people(tmp_path):
    responses = match.perfect()
    del responses[10:15]
    share = 15 / 20
    got = figures(tmp_path, responses)
    assert got["unanswered"] == 5
    assert_moved(
        got,
        {
            **dict.fromkeys(
                [f for f in FIGURES if f.startswith("detection") and f.endswith(("ap50", "ap"))],
                pytest.approx(76 / 101, abs=1e-4),
            ),
            "detection.recall": share,
            "tracking.deta": share,
            "tracking.assa": share,
            "tracking.hota": share,
            "tracking.mota": share,
            "tracking.idf1": 2 * share / (1 + share),
            "masks.j_of_all": share,
            **dict.fromkeys(("ball.recall.4", "ball.recall.8", "ball.recall.16"), share),
            "game_state.gs_hota": share,
        },
    )
    assert got["tracking.deta_loss.misses"] == share - 0.5


def test_invented_players_cost_precision_only(tmp_path):
    def invent(recognition):
        box = {"x_min": 5.0, "y_min": 5.0, "x_max": 17.0, "y_max": 29.0}
        player = {"track_id": "99", "box": box, "confidence": 0.1}
        recognition["players"].append(player)

    share = PEOPLE / (PEOPLE + 1)
    got = figures(tmp_path, match.damaged(invent))
    assert_moved(
        got,
        {
            "detection.precision": share,
            "tracking.deta": share,
            "tracking.hota": math.sqrt(share),
            "tracking.mota": 1 - 1 / PEOPLE,
            "tracking.idf1": 2 * share / (1 + share),
            "game_state.gs_hota": math.sqrt(share),
        },
    )
    assert got["tracking.deta_loss.false_positives"] == pytest.approx(1 - share, abs=1e-4)


def test_what_a_clip_s_labels_do_not_tell_is_not_held_against_a_run(tmp_path):
    run, clip = loaded(tmp_path, match.perfect())
    plain = replace(
        clip,
        name="plain",
        people={n: replace(person, kind="person") for n, person in clip.people.items()},
        sightings=tuple(tuple(s for s in seen if not s.is_ball) for seen in clip.sightings),
    )
    metrics = scores.evaluate([(run, plain), (run, clip)])
    for name in ("player", "goalkeeper", "referee", "ball"):
        assert metrics["clips"]["plain"]["detection"][name]["ap50"] is None
        assert metrics["pooled"]["detection"][name] == {"ap50": 1, "ap": 1}, name


def test_without_a_frame_rate_only_the_switches_in_ten_seconds_are_unknown(tmp_path):
    run, clip = loaded(tmp_path, match.perfect())
    metrics = scores.evaluate([(run, replace(clip, frame_rate=None))])
    tracking = metrics["pooled"]["tracking"]
    assert tracking["id_switches_per_10s"] is None
    assert (tracking["id_switches"], tracking["hota"]) == (0, 1)
    assert metrics["pooled"]["masks"]["j"] == 1


def test_clips_are_pooled_by_their_counts(tmp_path):
    run, clip = loaded(tmp_path, match.perfect())
    empty = replace(run, frames={0: replace(run.frames[0], players=(), ball=None)})
    metrics = scores.evaluate([(run, clip), (empty, replace(clip, name="other"))])
    assert list(metrics["clips"]) == ["synthetic", "other"]
    assert metrics["clips"]["other"]["detection"]["recall"] == 0
    assert metrics["clips"]["other"]["masks"]["j"] is None
    assert metrics["pooled"]["detection"]["recall"] == 0.5
    assert metrics["pooled"]["tracking"]["deta"] == 0.5
    assert metrics["pooled"]["frames"] == 2 * match.FRAMES


def test_of_nobody_neither_tracking_nor_the_game_state_is_measured(tmp_path):
    run, clip = loaded(tmp_path, match.damaged(lambda said: said.update(players=[])))
    balls = tuple(tuple(seen for seen in frame if seen.is_ball) for frame in clip.sightings)
    deserted = flat(scores.evaluate([(run, replace(clip, sightings=balls))])["pooled"])
    for name in ("hota", "deta", "assa", "loca", "hota50", "idf1", "mota"):
        assert deserted[f"tracking.{name}"] is None
    assert deserted["revised.hota"] is None
    assert deserted["game_state.gs_hota"] is None
    unseen = flat(scores.evaluate([(run, clip)])["pooled"])
    assert unseen["tracking.hota"] == unseen["game_state.gs_hota"] == 0
