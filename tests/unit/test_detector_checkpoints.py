"""Published RF-DETR checkpoints load by size and export to the served contract."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from training.detector.checkpoints import SIZES, labels, load
from training.detector.export import export, parity

SOCCER = ["player", "goalkeeper", "referee", "ball"]


@pytest.fixture(scope="module")
def soccer_fine_tune(tmp_path_factory) -> Path:
    """A file in the layout that rfdetr's training writes, with four classes."""
    model = SIZES["nano"](pretrain_weights=None, num_classes=4, device="cpu")
    path = tmp_path_factory.mktemp("weights") / "checkpoint_best_total.pth"
    state = {"model": model.model.model.state_dict(), "args": {"class_names": SOCCER}}
    torch.save(state, path)
    return path


@pytest.mark.filterwarnings("ignore")
def test_a_soccer_fine_tune_loads_and_exports_to_the_contract(soccer_fine_tune, tmp_path):
    model = load("nano", soccer_fine_tune)
    saved = torch.load(soccer_fine_tune, weights_only=True)["model"]
    loaded = model.model.model.state_dict()
    assert saved.keys() == loaded.keys()
    assert all(torch.equal(saved[name], loaded[name]) for name in saved)
    assert labels(model) == SOCCER

    out = tmp_path / "nano.onnx"
    export(model, out, names=labels(model), provenance="test")
    graph = onnx.load(out)
    shapes = {
        tensor.name: [d.dim_param or d.dim_value for d in tensor.type.tensor_type.shape.dim]
        for tensor in (*graph.graph.input, *graph.graph.output)
    }
    assert shapes["image"] == ["batch", 384, 384, 3]
    assert list(shapes) == ["image", "boxes", "logits"]
    assert {p.key: p.value for p in graph.metadata_props}["labels"] == ",".join(SOCCER)
    # Random weights leave near-ties among the queries, so only a single picture is compared.
    image = np.random.default_rng(1).integers(0, 256, (1, 384, 384, 3), np.uint8)
    assert max(parity(model, out, image).values()) < 1e-2


def test_a_missing_checkpoint_is_named_and_nothing_is_fetched(tmp_path):
    with pytest.raises(FileNotFoundError, match="rf-detr-medium.pth: expected a checkpoint"):
        load("medium", tmp_path / "rf-detr-medium.pth")


def test_an_unknown_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match="size: expected one of micro, nano"):
        load("giant", tmp_path / "x.pth")


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_of_another_size_is_refused(soccer_fine_tune):
    with pytest.raises(ValueError, match="expected a checkpoint of RF-DETR micro"):
        load("micro", soccer_fine_tune)
