"""A stand-in detector labels videos that nobody labelled."""

from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from tiny_data import write_video

from tests.unit.synthetic_stand_in import write_stand_in
from training.__main__ import main
from training.data.pictures import VideoFile
from training.data.pseudo_labels import StandIn, label
from training.data.reading import read
from training.errors import InputError


@pytest.fixture
def stand_in_file(tmp_path):
    return write_stand_in(tmp_path / "yolox.onnx")


def test_boxes_come_out_in_pixels_of_the_picture(stand_in_file):
    people = StandIn(stand_in_file).people(np.zeros((128, 128, 3), np.uint8))
    assert people.tolist() == [[24, 40, 56, 104]]


def test_every_window_of_a_large_picture_is_searched(stand_in_file):
    people = StandIn(stand_in_file).people(np.zeros((288, 576, 3), np.uint8))
    assert len(people) == 3
    assert people[:, 0].max() > 288


def test_nothing_under_the_least_score_is_a_person(stand_in_file):
    people = StandIn(stand_in_file).people(np.zeros((128, 128, 3), np.uint8), least_score=0.75)
    assert people.shape == (0, 4)


def test_a_labelled_video_reads_back_as_coco(stand_in_file, tmp_path, capsys):
    out = tmp_path / "labels"
    arguments = ["data", "label", "tests/data/demo_01.mp4", "--stand-in", str(stand_in_file)]
    assert main([*arguments, "--output", str(out), "--every", "5", "--frames", "11"]) == 0
    assert "not truth" in capsys.readouterr().out
    (clip,) = read(out)
    assert len(clip.sightings) == 3
    assert all(seen.kind == "person" for frame in clip.sightings for seen in frame)
    assert len(clip.sightings[0]) > 0


def test_a_video_with_more_packets_than_pictures_is_labelled_as_far_as_it_goes(
    stand_in_file, tmp_path, monkeypatch
):
    """As interlaced and truncated ones have."""
    video = tmp_path / "Spiel 1, Süd.mp4"
    write_video(video, frames=4, size=(128, 128))
    facts = VideoFile(video).probe()
    monkeypatch.setattr(VideoFile, "probe", lambda _self: replace(facts, frame_count=9))
    clip = label(video, StandIn(stand_in_file), every=3, frames=None)
    assert [len(frame) for frame in clip.sightings] == [1, 0, 0, 1]
    assert len(list(clip.frames())) == 4


def test_labels_are_never_half_there(stand_in_file, tmp_path, capsys, monkeypatch):
    out, arguments = tmp_path / "labels", ["data", "label", "tests/data/demo_01.mp4"]
    options = ["--stand-in", str(stand_in_file), "--output", str(out), "--frames", "6"]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("training.data.writers.coco.json.dumps", interrupted)
        assert main([*arguments, *options]) == 130
    assert not out.exists()
    assert main([*arguments, *options]) == 0
    assert len(read(out)) == 1

    monkeypatch.setattr(StandIn, "people", interrupted)
    assert main([*arguments, *options]) == 1, "told before the work, not after it"
    assert "labels: expected a new or empty folder" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["every", "frames"])
def test_numbers_below_one_are_refused_by_name(stand_in_file, option, tmp_path):
    numbers = {"every": 5, "frames": 5, option: 0}
    with pytest.raises(InputError, match=f"--{option}"):
        label(tmp_path / "no.mp4", StandIn(stand_in_file), **numbers)


def test_a_file_that_is_no_stand_in_is_refused(tmp_path):
    with pytest.raises(InputError, match="YOLOX"):
        StandIn(tmp_path / "absent.onnx")
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"junk.onnx: expected an ONNX file"):
        StandIn(tmp_path / "junk.onnx")
    with pytest.raises(InputError, match=r"expected an input \[1, 3, R, R\]"):
        StandIn(Path("model_repository/rfdetr_detector/weights/demo.onnx"))


@pytest.mark.parametrize(
    ("images", "output", "complaint"),
    [
        ([1, 3, "height", "width"], [1, 84, 85], r"expected an input \[1, 3, R, R\]"),
        ([1, 3, 64, 32], [1, 84, 85], r"expected an input \[1, 3, R, R\]"),
        ([1, 3, 64, 64], [1, 1000], r"expected YOLOX's output \[1, 84, 85\], got \[1, 1000\]"),
    ],
)
def test_a_network_of_another_layout_is_refused(images, output, complaint, tmp_path):
    sizes = {"images": images, "output": output}
    ends = {name: helper.make_tensor_value_info(name, 1, size) for name, size in sizes.items()}
    zeros = helper.make_tensor("zeros", 1, output, [0.0] * prod(output))
    nodes = [helper.make_node("Constant", [], ["output"], value=zeros)]
    graph = helper.make_graph(nodes, "g", [ends["images"]], [ends["output"]])
    path = tmp_path / "net.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    with pytest.raises(InputError, match=complaint):
        StandIn(path)
