"""`touchline evaluate`, from files to files, and what it says to bad input."""

import base64
import html
import json
import re
import sys
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from tiny_data import write_coco

from tests.unit import synthetic_match as match
from training.__main__ import main
from training.evaluation.plots import NAMES
from training.evaluation.targets import TARGETS
from training.weights.registry import MODEL_REPOSITORY


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("footage")
    match.write_truth(folder)
    match.write_truth(folder, "second")
    return folder


@pytest.fixture
def run(tmp_path):
    return match.write_run(tmp_path / "run", match.perfect())


def refused(arguments, capsys):
    assert main(["evaluate", *map(str, arguments)]) == 1
    return capsys.readouterr().err


def test_runs_are_scored_into_json_plots_and_a_page(run, footage, tmp_path, capsys):
    def hide(recognition):
        recognition["players"].pop()

    second = match.write_run(tmp_path / "second", match.damaged(hide), "/somewhere/second.mp4")
    output = tmp_path / "out"
    arguments = ["evaluate", run, second / "results.jsonl", "--truth", footage, "--output", output]
    assert main([str(argument) for argument in arguments]) == 0
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["version"] == 1
    assert metrics["clips"].keys() == {"synthetic", "second"}
    assert metrics["pooled"]["detection"]["recall"] == 0.95
    assert metrics["targets"]["tracking.hota"] == {"bound": 0.78, "is_most": False}
    told = capsys.readouterr().out
    assert "AP50 people" in told
    assert "40 frames, 0 without a result" in told
    pictures = [(output / f"{name}.png").read_bytes() for name in NAMES]
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)

    page = (output / "report.html").read_text()
    assert len(page) < 400_000
    assert all(base64.b64encode(picture).decode() in page for picture in pictures)
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)
    text = html.unescape(page)
    for target in TARGETS:
        assert target.name in text
        assert metrics["definitions"][target.path] in text
        for figures in (metrics["pooled"], *metrics["clips"].values()):
            assert f">{target.value(figures):.3f}</td>" in text


def test_truth_may_be_given_one_to_one(run, footage, capsys):
    (run / "summary.json").unlink()
    assert main(["evaluate", str(run), "--truth", str(footage / "second.gt.json.gz")]) == 0
    assert "second" in capsys.readouterr().out
    error = refused([run, "--truth", footage], capsys)
    assert "summary.json" in error
    assert "--truth CLIP.gt.json.gz" in error


def test_labels_without_roles_masks_and_numbers_are_truth_too(run, tmp_path):
    sequence = tmp_path / "mot" / "synthetic"
    (sequence / "img1").mkdir(parents=True)
    (sequence / "gt").mkdir()
    size = f"imWidth={match.WIDTH}\nimHeight={match.HEIGHT}\n"
    (sequence / "seqinfo.ini").write_text(
        f"[Sequence]\nname=synthetic\nframeRate=25\nseqLength={match.FRAMES}\n{size}"
    )
    with (sequence / "gt" / "gt.txt").open("w") as rows:
        for index in range(match.FRAMES):
            picture = Image.new("RGB", (match.WIDTH, match.HEIGHT))
            picture.save(sequence / "img1" / f"{index + 1:06d}.jpg")
            for person in match.ASKED:
                x, y, *_ = match.place(person, index)
                rows.write(f"{index + 1},{person},{x},{y},12,24,1,1,1\n")
    output = tmp_path / "out"
    for truth in (sequence.parent, sequence):
        arguments = ["evaluate", run, "--truth", truth, "--output", output]
        assert main([str(argument) for argument in arguments]) == 0
    pooled = json.loads((output / "metrics.json").read_text())["pooled"]
    assert pooled["tracking"]["hota"] == 1
    assert pooled["detection"]["person"]["ap"] == 1
    assert pooled["detection"]["referee"]["ap"] is None
    assert pooled["masks"]["j"] is None
    assert pooled["attributes"]["team_accuracy"] is None
    assert pooled["attributes"]["role_accuracy"] is None
    assert pooled["numbers"]["right_of_readable"] is pooled["numbers"]["precision"] is None
    assert pooled["ball"]["recall"]["8"] is pooled["ball"]["precision"]["8"] is None
    assert pooled["game_state"]["gs_hota"] is None


def test_masks_alone_are_truth_too(run, tmp_path):
    truth = tmp_path / "synthetic"
    pictures, masks = (truth / name / "synthetic" for name in ("JPEGImages", "Annotations"))
    pictures.mkdir(parents=True)
    masks.mkdir(parents=True)
    for index in range(match.FRAMES):
        ids = np.zeros((match.HEIGHT, match.WIDTH), np.uint8)
        for person in match.ASKED:
            x0, y0, x1, y1 = match.place(person, index)
            ids[y0:y1, x0:x1] = person
        image = Image.fromarray(ids).convert("P")
        image.putpalette([value for value in range(256) for _ in range(3)])
        image.putdata(ids.ravel().tolist())
        image.save(masks / f"{index:05d}.png")
        Image.new("RGB", (match.WIDTH, match.HEIGHT)).save(pictures / f"{index:05d}.jpg")
    output = tmp_path / "out"
    order = ["evaluate", run, "--truth", truth, "--output", output]
    assert main([str(part) for part in order]) == 0
    pooled = json.loads((output / "metrics.json").read_text())["pooled"]
    assert pooled["masks"]["j_and_f"] == pooled["tracking"]["hota"] == 1
    assert pooled["tracking"]["id_switches_per_10s"] is None
    assert pooled["numbers"]["precision"] is pooled["attributes"]["team_accuracy"] is None


def test_an_unknown_clip_is_named(footage, tmp_path, capsys):
    run = match.write_run(tmp_path / "run", match.perfect(), "nobody.mp4")
    assert "nobody.gt.json.gz" in refused([run, "--truth", footage], capsys)


def test_two_runs_of_one_clip_are_refused(run, footage, capsys):
    assert "several" in refused([run, run, "--truth", footage], capsys)


def test_as_many_truth_files_as_runs_are_wanted(run, footage, capsys):
    truth = footage / "second.gt.json.gz"
    assert "expected one folder or 1" in refused([run, "--truth", truth, truth], capsys)
    assert "second.mp4x" in refused([run, "--truth", footage / "second.mp4x"], capsys)


def test_a_truncated_line_is_named(run, footage, capsys):
    path = run / "results.jsonl"
    path.write_text(path.read_text()[:-20])
    error = refused([run, "--truth", footage], capsys)
    assert f"{path}:{match.FRAMES + 1}: expected a RecognizeStreamResponse" in error


def test_bytes_that_are_no_text_are_named(run, footage, capsys):
    path = run / "results.jsonl"
    path.write_bytes(path.read_bytes() + b"\xff\n")
    error = refused([run, "--truth", footage], capsys)
    assert f"{path}:{match.FRAMES + 2}: expected a RecognizeStreamResponse" in error


def test_a_number_believed_beyond_measure_is_named(tmp_path, footage, capsys):
    responses = match.perfect()
    responses[-1]["summary"]["tracks"][0]["jersey_number_confidence"] = "NaN"
    run = match.write_run(tmp_path / "run", responses)
    error = refused([run, "--truth", footage], capsys)
    assert f":{match.FRAMES + 1}: jersey_number_confidence: expected 0 to 1, found nan" in error


def test_missing_and_empty_results_are_named(tmp_path, footage, capsys):
    assert "results.jsonl" in refused([tmp_path / "results.jsonl", "--truth", footage], capsys)
    (tmp_path / "results.jsonl").touch()
    assert "at least one line" in refused([tmp_path, "--truth", footage], capsys)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda r: r.update(frame_index="20"), "frame_index 20: the truth of synthetic has 20"),
        (lambda r: r.update(frame_index="-1"), "frame_index -1: the truth of synthetic has 20"),
        (lambda r: r.update(frame_index="4"), ":4: frame_index 4 comes twice"),
        (lambda r: r.update(width_px=1280, players=[]), "1280x192 px"),
        (lambda r: r["players"][0].update(track_id="2"), ":4: players: expected every track_id"),
        (lambda r: r["players"][0]["mask"].update(height=9), ":4: mask: size [9, 400]"),
        (
            lambda r: r["ball"]["box"].update(x_max=0),
            ":4: box: expected finite sides, max",
        ),
        (lambda r: r["ball"]["box"].update(x_max="Infinity"), ":4: box: expected finite sides"),
        (lambda r: r["players"][0].update(confidence="NaN"), ":4: confidence: expected 0 to 1"),
        (lambda r: r["ball"].update(confidence=2), ":4: ball.confidence: expected 0 to 1, found 2"),
        (lambda r: r.update(frame="4"), ":4: expected a RecognizeStreamResponse"),
    ],
)
def test_a_run_that_does_not_fit_is_refused(tmp_path, footage, capsys, change, expected):
    responses = match.perfect()
    first, fourth = responses[0]["recognition"], responses[3]["recognition"]
    first["frame_index"] = "4"
    del responses[4]
    change(fourth)
    run = match.write_run(tmp_path / "run", responses)
    assert expected in refused([run, "--truth", footage], capsys)


def test_a_stream_that_was_begun_anew_is_refused_and_one_that_was_resumed_is_not(
    tmp_path, footage, capsys
):
    responses = match.perfect()
    responses.insert(3, {"started": {"is_resumed": True}})
    run = match.write_run(tmp_path / "resumed", responses)
    assert main([*map(str, ["evaluate", run, "--truth", footage, "--output", tmp_path])]) == 0
    responses[3]["started"]["is_resumed"] = False
    run = match.write_run(tmp_path / "anew", responses)
    assert ":4: expected one stream" in refused([run, "--truth", footage], capsys)


def test_a_broken_summary_is_named(run, footage, capsys):
    (run / "summary.json").write_text("[]")
    assert "summary.json: expected a JSON object" in refused([run, "--truth", footage], capsys)


def test_a_model_is_scored_by_its_own_room(monkeypatch, tmp_path, footage, capsys):
    room = ModuleType("training.jersey.evaluate")
    room.evaluate = lambda weights, footage, clips: {"asked": [weights.name, *clips]}
    monkeypatch.setitem(sys.modules, room.__name__, room)
    weights = tmp_path / "jersey.onnx"
    weights.touch()
    arguments = ["evaluate", "--of", "jersey", weights, "--truth", footage, "--output", tmp_path]
    assert main([*map(str, arguments), "--clips", "second"]) == 0
    expected = {"asked": ["jersey.onnx", "second"]}
    assert json.loads((tmp_path / "metrics.json").read_text()) == expected
    assert json.loads(capsys.readouterr().out) == expected


def test_the_tracker_is_judged_on_stretches_of_its_own(monkeypatch, tmp_path, footage):
    room = ModuleType("training.tracker.evaluate")
    asked = []
    room.evaluate = lambda weights, footage, clips: asked.append(clips)
    monkeypatch.setitem(sys.modules, room.__name__, room)
    weights = tmp_path / "tracker.safetensors"
    weights.touch()
    assert main(["evaluate", "--of", "tracker", str(weights), "--truth", str(footage)]) == 0
    assert asked == [()]


@pytest.mark.parametrize("clip", ["dev_05:", "dev_05:0", "dev_05:all"])
def test_a_stretch_without_a_number_of_frames_is_named(clip, run, footage, capsys):
    order = ["--of", "tracker", run, "--truth", footage, "--clips", clip]
    assert f"--clips {clip}: expected CLIP, or CLIP:FRAMES" in refused(order, capsys)


def test_options_that_would_be_overlooked_are_refused(run, footage, capsys):
    stand_in = [run, "--stand-in", "yolox.onnx", "--video", "match.mp4"]
    for option, value in (("--truth", footage), ("--of", "detector"), ("--clips", "a")):
        error = refused([*stand_in, option, value], capsys)
        assert "--stand-in: expected without --truth, --of and --clips" in error
    error = refused([run, "--truth", footage, "--video", "match.mp4"], capsys)
    assert "--video: expected only with --stand-in" in error


@pytest.mark.parametrize("model", ["tracker", "jersey", "embedder"])
def test_a_model_that_needs_rendered_clips_says_so(model, tmp_path, run, capsys):
    truth = write_coco(tmp_path / "coco")
    complaint = refused(["--of", model, run, "--truth", truth], capsys)
    assert "coco: expected rendered clips" in complaint


@pytest.mark.parametrize("model", ["detector", "jersey"])
def test_weights_of_another_kind_are_named(model, tmp_path, footage, capsys):
    junk, others = (
        tmp_path / "junk.onnx",
        {"detector": "resnet_jersey", "jersey": "rfdetr_detector"},
    )
    junk.write_bytes(b"junk")
    other = MODEL_REPOSITORY / others[model] / "weights" / "demo.onnx"
    for weights, complaint in ((junk, "an ONNX file"), (other, f"a {model}")):
        found = refused(["--of", model, weights, "--truth", footage], capsys)
        assert f"{weights}: expected {complaint}" in found


def test_a_model_wants_weights_that_are_there(tmp_path, footage, run, capsys):
    command = ["--of", "jersey", tmp_path / "none.onnx", "--truth", footage]
    assert "none.onnx: no such file" in refused(command, capsys)
    assert "expected one weights file" in refused([*command, footage], capsys)
    assert "only with --of" in refused([run, "--truth", footage, "--clips", "x"], capsys)
