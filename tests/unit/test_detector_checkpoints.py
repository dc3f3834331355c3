"""Published RF-DETR checkpoints load by size and export to the served contract."""

from pathlib import Path

import numpy as np
import pytest
import torch

from orchestrator.contracts import RFDETR_DETECTOR
from training.detector.checkpoints import SIZES, labels, load
from training.detector.export import to_onnx, torch_runner
from training.errors import InputError
from training.export.graph import check_graph, onnx_runner
from training.export.precision import Precision, converted
from training.export.rtx import check_model, load_rtx

pytestmark = pytest.mark.filterwarnings("ignore")  # rfdetr's, of weights from scratch and sizes

SOCCER = ["player", "goalkeeper", "referee", "ball"]


@pytest.fixture(scope="module")
def soccer_fine_tune(tmp_path_factory) -> Path:
    """A file in the layout that rfdetr's training writes, with four classes."""
    model = SIZES["nano"](pretrain_weights=None, num_classes=4, device="cpu")
    path = tmp_path_factory.mktemp("weights") / "checkpoint_best_total.pth"
    state = {"model": model.model.model.state_dict(), "args": {"class_names": SOCCER}}
    torch.save(state, path)
    return path


def test_a_checkpoint_keeps_its_head_where_its_size_has_fewer_classes(tmp_path):
    trained = SIZES["micro"](pretrain_weights=None, num_classes=4, device="cpu").model.model
    path = tmp_path / "last_ema.pth"
    torch.save({"model": trained.state_dict(), "args": {"class_names": SOCCER}}, path)
    model = load("micro", path)
    assert labels(model) == SOCCER
    assert torch.equal(model.model.model.class_embed.weight, trained.class_embed.weight)


@pytest.fixture(scope="module")
def loaded(soccer_fine_tune):
    """The fine-tune as loaded, and its fp32 graph."""
    model = load("nano", soccer_fine_tune)
    return model, to_onnx(model)


def test_a_soccer_fine_tune_loads_and_becomes_a_graph_of_the_contract(soccer_fine_tune, loaded):
    model, graph = loaded
    saved = torch.load(soccer_fine_tune, weights_only=True)["model"]
    state = model.model.model.state_dict()
    assert saved.keys() == state.keys()
    assert all(torch.equal(saved[name], state[name]) for name in saved)
    assert labels(model) == SOCCER
    assert labels(model, given=", ".join(SOCCER)) == list(SOCCER)
    for wrong in ("player,ball", "player,,referee,ball"):
        with pytest.raises(InputError, match="labels: expected 4 names"):
            labels(model, given=wrong)

    check_graph(graph, RFDETR_DETECTOR)
    shapes = {
        tensor.name: [d.dim_param or d.dim_value for d in tensor.type.tensor_type.shape.dim]
        for tensor in (*graph.graph.input, *graph.graph.output)
    }
    assert shapes == {
        "image": ["batch", 384, 384, 3],
        "boxes": ["batch", 300, 4],
        "logits": ["batch", 300, 5],
    }
    # Random weights leave near-ties among the queries, so only a single picture is compared.
    image = np.random.default_rng(1).integers(0, 256, (1, 384, 384, 3), np.uint8)
    expected, found = torch_runner(model)(image), onnx_runner(graph)(image)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-2, err_msg=name)


def test_tensorrt_takes_a_soccer_fine_tune_in_fp16(loaded):
    pytest.importorskip("tensorrt_rtx_bindings")
    graph = converted(loaded[1], Precision.FP16)
    assert check_model(load_rtx(), graph, ()).layers > 3000


def test_a_missing_checkpoint_is_named_and_nothing_is_fetched(tmp_path):
    with pytest.raises(FileNotFoundError, match="rf-detr-medium.pth: expected a checkpoint"):
        load("medium", tmp_path / "rf-detr-medium.pth")


def test_an_unknown_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match="size: expected one of micro, nano"):
        load("giant", tmp_path / "x.pth")


def test_a_checkpoint_of_another_size_is_refused(soccer_fine_tune):
    with pytest.raises(ValueError, match="expected a checkpoint of RF-DETR micro"):
        load("micro", soccer_fine_tune)
