"""`touchline export`: checked files with a record of what they are, or a refusal and no file."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from orchestrator.contracts import RESNET_JERSEY
from training.__main__ import main
from training.checksum import sha256_of
from training.detector.checkpoints import SIZES
from training.errors import InputError
from training.export.families import JERSEY
from training.export.files import AgreementError, Source, export_files
from training.export.graph import check_graph, onnx_runner
from training.export.precision import Precision
from training.jersey.checkpoints import save
from training.jersey.export import to_onnx, torch_runner
from training.jersey.net import JerseyNet

FRAME = Path(__file__).parents[1] / "data" / "frame.jpg"


@pytest.fixture(scope="module")
def jersey(tmp_path_factory):
    torch.manual_seed(0)
    return save(JerseyNet("resnet10").eval(), tmp_path_factory.mktemp("jersey") / "jersey.pt")


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A detector of random weights that claims to see something everywhere."""
    torch.manual_seed(0)
    model = SIZES["micro"](pretrain_weights=None)
    network = model.model.model
    torch.nn.init.constant_(network.class_embed.bias, 0.0)
    path = tmp_path_factory.mktemp("detector") / "micro.pth"
    torch.save({"model": network.state_dict(), "args": {"class_names": ["person", "ball"]}}, path)
    return path


def order(model, checkpoint, output, *more):
    return [
        "export",
        model,
        str(checkpoint),
        "--output",
        str(output),
        "--pictures",
        str(FRAME),
        *more,
    ]


def test_the_jersey_net_is_written_in_every_precision_with_a_record(jersey, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(order("jersey", jersey, out, "--precision", *Precision)) == 0
    names = [f"resnet_jersey.{precision}.onnx" for precision in Precision]
    assert sorted(path.name for path in out.iterdir()) == sorted([*names, "export.json"])
    record = json.loads((out / "export.json").read_text())
    assert list(record["files"]) == names
    for name, facts in record["files"].items():
        assert facts["sha256"] == sha256_of(out / name)
        assert facts["bytes"] == (out / name).stat().st_size
        assert facts["against_torch"]["units.logit_error"] < 0.4
        assert facts["checkpoint"] == {"name": "jersey.pt", "sha256": sha256_of(jersey)}
        assert facts["opset"] == 17
        assert facts["compared_inputs"] == 12
        assert set(facts["packages"]) >= {"torch", "onnx", "onnxruntime"}
    assert record["files"][names[0]]["against_torch"]["units.logit_error"] < 1e-4
    assert "resnet_jersey.int8.onnx  5.0 MB" in capsys.readouterr().out


def test_a_written_graph_keeps_its_contract_and_says_what_it_is(jersey, tmp_path):
    order_it = order("jersey", jersey, tmp_path, "--precision", "fp16", "--provenance", "a test")
    assert main(order_it) == 0
    graph = onnx.load(tmp_path / "resnet_jersey.fp16.onnx")
    check_graph(graph, RESNET_JERSEY)
    properties = {entry.key: entry.value for entry in graph.metadata_props}
    assert properties == {"provenance": "a test", "precision": "fp16"}
    rows = np.zeros((5, 128, 64, 3), np.uint8)
    assert onnx_runner(graph)(rows)["tens"].shape == (5, 11)


@pytest.mark.filterwarnings("ignore")
def test_the_detector_is_written_with_its_labels(detector, tmp_path):
    assert main(order("detector", detector, tmp_path, "--precision", "fp32")) == 0
    graph = onnx.load(tmp_path / "rfdetr_detector.fp32.onnx")
    assert {p.key: p.value for p in graph.metadata_props}["labels"] == "person,ball"
    facts = json.loads((tmp_path / "export.json").read_text())["files"]["rfdetr_detector.fp32.onnx"]
    assert facts["against_torch"]["matched"] == 1.0
    assert facts["against_torch"]["logit_error"] < 1e-4


@pytest.mark.filterwarnings("ignore")
def test_labels_that_do_not_fit_the_checkpoint_are_refused(detector, tmp_path, capsys):
    assert main(order("detector", detector, tmp_path, "--labels", "person")) == 1
    assert "labels: expected 2 names, got 1" in capsys.readouterr().err


def test_a_form_that_answers_otherwise_is_refused_with_its_figures_and_no_file(jersey, tmp_path):
    net, other = JerseyNet("resnet10"), JerseyNet("resnet10")
    source = Source(jersey, to_onnx(net), torch_runner(other), {})
    rows = np.random.default_rng(0).integers(0, 256, (8, 128, 64, 3), np.uint8)
    out = tmp_path / "out"
    with pytest.raises(
        AgreementError, match=r"resnet_jersey in fp32 is refused.*tens\.logit_error"
    ):
        export_files(source, JERSEY, [Precision.FP32], rows, out)
    assert not out.exists()


def exported(source, precision, folder, rows):
    export_files(source, JERSEY, [precision], rows, folder)
    return json.loads((folder / "export.json").read_text())["files"]


def test_a_second_export_into_a_folder_keeps_what_is_said_of_the_first(jersey, tmp_path):
    net = JerseyNet("resnet10").eval()
    source = Source(jersey, to_onnx(net), torch_runner(net), {"provenance": "first"})
    rows = np.random.default_rng(0).integers(0, 256, (2, 128, 64, 3), np.uint8)
    first = exported(source, Precision.FP32, tmp_path, rows)
    again = replace(source, properties={"provenance": "second"})
    both = exported(again, Precision.FP16_STORED, tmp_path, rows)
    assert first.items() <= both.items()
    said = {name: facts["properties"]["provenance"] for name, facts in both.items()}
    assert list(said.values()) == ["first", "second"]
    (tmp_path / "resnet_jersey.fp32.onnx").unlink()
    assert list(exported(again, Precision.FP16_STORED, tmp_path, rows)) == list(said)[1:]


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"files": 3}'])
def test_a_record_of_something_else_is_not_written_over(jersey, tmp_path, content):
    source = Source(jersey, to_onnx(net := JerseyNet("resnet10")), torch_runner(net), {})
    (tmp_path / "export.json").write_text(content)
    with pytest.raises(InputError, match=r"export\.json: expected the record of an export"):
        exported(source, Precision.FP32, tmp_path, np.zeros((1, 128, 64, 3), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["export.json"]


def test_a_missing_checkpoint_is_named(tmp_path, capsys):
    assert main(order("jersey", tmp_path / "gone.pt", tmp_path)) == 1
    assert "gone.pt: expected a file of weights" in capsys.readouterr().err


@pytest.mark.parametrize("count", ["0", "-1"])
def test_a_count_of_pictures_below_one_is_refused(jersey, tmp_path, capsys, count):
    assert main(order("jersey", jersey, tmp_path, "--count", count)) == 1
    assert f"--count: expected 1 or more, got {count}" in capsys.readouterr().err


def test_check_reports_each_file(jersey, tmp_path, capsys):
    pytest.importorskip("tensorrt_rtx_bindings")
    assert main(order("jersey", jersey, tmp_path, "--precision", "fp16")) == 0
    file = str(tmp_path / "resnet_jersey.fp16.onnx")
    assert main(["export", "check", "--build", "--capabilities", "80", "--", file]) == 0
    assert "layers, parsed in" in capsys.readouterr().out.splitlines()[-1]
