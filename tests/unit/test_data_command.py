"""`touchline data check|stats|convert|preview` from the command line."""

import json
import signal
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from tiny_data import rendered_truth, write_mot, write_rendered

from training.__main__ import main
from training.data.preview import CELL_WIDTH
from training.data.reading import read
from training.data.writers import stills


@pytest.fixture
def rendered(tmp_path):
    folder = tmp_path / "rendered"
    folder.mkdir()
    return write_rendered(folder)


def test_sound_data_passes_the_check(rendered, capsys):
    assert main(["data", "check", str(rendered)]) == 0
    assert capsys.readouterr().out == "rendered: 1 clips, 3 frames, no problem\n"


def test_a_check_lists_every_problem_and_fails(rendered, capsys):
    truth = rendered_truth()
    del truth["people"][0]["kind"]
    truth["frames"][0]["objects"][1]["box_full"] = [1, 1, 1, 1]
    write_rendered(rendered, truth)
    assert main(["data", "check", str(rendered)]) == 1
    out = capsys.readouterr().out
    assert "a.gt.json.gz: people[0]: expected field 'kind'" in out
    assert "frames[0].objects[1].box_full: expected a box of positive width" in out
    main(["data", "check", str(rendered), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["count"] == len(found["problems"]) > 2


def test_an_unknown_layout_is_told_on_stderr(tmp_path, capsys):
    assert main(["data", "check", str(tmp_path)]) == 1
    assert "expected one of the layouts" in capsys.readouterr().err


def test_stats_count_what_is_there(rendered, capsys):
    assert main(["data", "stats", str(rendered), "--json"]) == 0
    clip, total = json.loads(capsys.readouterr().out)
    assert clip["name"] == "a"
    assert total["frames"] == 3
    assert total["boxes"] == {"player": 3, "ball": 3}
    assert total["heights"] == {"people": [22, 22, 22], "ball": [4, 4, 4]}
    assert (total["people_per_frame"], total["most_people"]) == (1, 1)
    assert (total["readable_numbers"], total["numbered_people"], total["masks"]) == (3, 1, True)


def test_stats_do_not_invent_what_a_format_does_not_tell(tmp_path, capsys):
    assert main(["data", "stats", str(write_mot(tmp_path)), "--json"]) == 0
    total = json.loads(capsys.readouterr().out)[-1]
    assert (total["readable_numbers"], total["masks"]) == (None, False)


def test_the_table_shows_each_clip_and_the_sum(rendered, capsys):
    write_rendered(rendered, name="b")
    assert main(["data", "stats", str(rendered)]) == 0
    rows = [line.split("│")[1:3] for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert [(name.strip(), int(frames)) for name, frames in rows] == [
        ("a", 3),
        ("b", 3),
        ("all", 6),
    ]


@pytest.mark.parametrize(
    ("target", "name", "identities"),
    [("coco", "coco", True), ("yolo", "yolo", False), ("mot", "soccernet-tracking", True)],
)
def test_what_is_converted_is_sound(rendered, tmp_path, capsys, target, name, identities):
    out = tmp_path / "out"
    assert main(["data", "convert", str(rendered), "--to", target, "--output", str(out)]) == 0
    assert main(["data", "check", str(out)]) == 0
    assert f"{name}: 1 clips, 3 frames, no problem" in capsys.readouterr().out
    (clip,) = read(out)
    assert clip.is_tracked is identities
    assert main(["data", "convert", str(rendered), "--to", target, "--output", str(out)]) == 1
    assert "expected a new or empty folder" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["coco", "yolo"])
def test_a_conversion_that_fails_leaves_nothing_that_looks_done(rendered, tmp_path, capsys, target):
    video, out = rendered / "a.mp4", tmp_path / "out"
    with av.open(str(video)) as container:
        last = [packet for packet in container.demux(video=0) if packet.size][-1]
    content = bytearray(video.read_bytes())
    content[last.pos : last.pos + last.size] = bytes(last.size)
    video.write_bytes(content)
    arguments = ["data", "convert", str(rendered), "--to", target, "--output", str(out)]
    assert main(arguments) == 1
    assert "a.mp4: expected a video" in capsys.readouterr().err
    assert not out.exists()
    write_rendered(rendered)
    assert main(arguments) == 0, "what a failure left is in nobody's way"
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == ["out"]


def test_a_conversion_that_sigterm_ends_leaves_nothing_half_filled(rendered, tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(stills, "write_jpeg", lambda *_: signal.raise_signal(signal.SIGTERM))
    arguments = [
        "data",
        "convert",
        str(rendered),
        "--to",
        "coco",
        "--output",
        f"{tmp_path / 'out'}",
    ]
    assert main(arguments) == 143
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_mounted_folder_is_refused_before_hours_of_converting(rendered, capsys, monkeypatch):
    out = rendered.parent / "out"
    out.mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path == out)
    assert main(["data", "convert", str(rendered), "--to", "coco", "--output", str(out)]) == 1
    assert "out: expected a folder inside the mounted one" in capsys.readouterr().err


def test_held_out_clips_become_the_valid_split_and_leaks_are_warned_of(rendered, tmp_path, capsys):
    write_rendered(rendered, name="b")
    out = tmp_path / "out"
    arguments = ["data", "convert", str(rendered), "--to", "coco", "--output", str(out)]
    assert main([*arguments, "--held-out", "b"]) == 0
    said = capsys.readouterr()
    assert said.out == "train: a\nvalid: b\n"
    assert "warning: a trains, but shares the shirt" in said.err
    assert [clip.name for clip in read(out / "valid")] == ["b"]
    assert main([*arguments[:-1], str(tmp_path / "other"), "--held-out-share", "0.5"]) == 1
    assert "all clips share a kit or source" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--every", "0"], "--every: expected 1 or more"),
        (["--every", "2", "--to", "mot"], "--every: expected 1 for mot"),
        (["--held-out", "zz"], "expected names of clips, got zz"),
        (["--held-out", "a", "--held-out-share", "0.5"], "expected one of the two"),
    ],
)
def test_wrong_options_are_told(rendered, tmp_path, capsys, extra, message):
    out = ["--output", str(tmp_path / "out")]
    assert main(["data", "convert", str(rendered), "--to", "coco", *out, *extra]) == 1
    assert message in capsys.readouterr().err


def test_a_preview_shows_boxes_and_masks(rendered, tmp_path):
    sheet = tmp_path / "new" / "sheet.png"
    assert main(["data", "preview", str(rendered), "--frames", "2", "--output", str(sheet)]) == 0
    pixels = np.asarray(Image.open(sheet)).astype(int)
    assert pixels.shape[1] >= 2 * CELL_WIDTH
    scale = CELL_WIDTH / 64
    # The left edge of the player's box is drawn in the left team's red, on a grey picture.
    edge = pixels[int(25 * scale), int(10.5 * scale)]
    assert edge[0] > edge[1] + 60
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


def test_a_preview_needs_a_picture_name_and_a_frame(rendered, tmp_path, capsys):
    base = ["data", "preview", str(rendered), "--output"]
    assert main([*base, str(tmp_path / "sheet.words")]) == 1
    assert "expected a name like sheet.png" in capsys.readouterr().err
    assert main([*base, str(tmp_path / "sheet.png"), "--frames", "0"]) == 1
    assert "--frames: expected 1 or more" in capsys.readouterr().err
