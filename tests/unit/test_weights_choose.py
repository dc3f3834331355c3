"""Choosing weights changes what Triton is told to serve."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from deploy.local.repository import config_file, read_config, staged_repository
from training.__main__ import main
from training.checksum import sha256_of
from training.errors import InputError
from training.weights.choose import use_entry, use_path
from training.weights.registry import MODEL_REPOSITORY, Entry, File, read_registry


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of the model repository."""
    root = tmp_path / "repository"
    ignored = shutil.ignore_patterns("__pycache__", "sam2_streaming")
    shutil.copytree(MODEL_REPOSITORY, root, ignore=ignored, symlinks=True)
    return root


def served(repository: Path, model: str, variant: str = "cpu") -> Any:
    """The config that `touchline up` gives to Triton."""
    with staged_repository({}, repository=repository, variant=variant) as staged:
        return read_config(config_file(staged, model, variant))


def parameter(config: Any, name: str) -> str:
    return str(config.parameters[name].string_value)


def registered(name: str, contents: dict[str, bytes], folder: Path) -> Entry:
    """A published entry with files of our own."""
    folder.mkdir(parents=True)
    files = []
    for path, data in contents.items():
        (folder / path).write_bytes(data)
        files.append(File(path=path, size=len(data), sha256=sha256_of(folder / path)))
    (entry,) = read_registry().find([name])
    return entry.model_copy(update={"files": tuple(files)})


def write_detector(path: Path, labels: str, side: int, queries: int) -> None:
    import onnx
    from onnx import TensorProto, helper

    columns = labels.count(",") + 2
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", side, side, 3])
    outputs = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["batch", queries, 4]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", queries, columns]),
    ]
    constants = [
        helper.make_node("ConstantOfShape", [f"{name}_shape"], [name], value=None)
        for name in ("boxes", "logits")
    ]
    shapes = [
        helper.make_tensor("boxes_shape", TensorProto.INT64, [3], [1, queries, 4]),
        helper.make_tensor("logits_shape", TensorProto.INT64, [3], [1, queries, columns]),
    ]
    graph = helper.make_graph(constants, "detector", [image], outputs, initializer=shapes)
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    helper.set_model_props(model, {"labels": labels})
    onnx.save(model, path)


def test_a_fine_tuned_detector_brings_its_sizes_and_labels(repository, tmp_path):
    path = tmp_path / "club.onnx"
    write_detector(path, "player, goalkeeper, referee, ball", side=384, queries=300)
    before = config_file(repository, "rfdetr_detector", "cpu").read_text()
    use_path(repository, "rfdetr_detector", path, "cpu")

    config = served(repository, "rfdetr_detector")
    assert parameter(config, "weights") == str(path)
    assert parameter(config, "labels") == "player, goalkeeper, referee, ball"
    assert parameter(config, "thresholds") == "0.5,0.5,0.5,0.3"
    assert list(config.input[0].dims) == [384, 384, 3]
    assert [list(output.dims) for output in config.output] == [[300, 4], [300, 5]]
    changed = config_file(repository, "rfdetr_detector", "cpu").read_text()
    assert changed.splitlines()[0] == before.splitlines()[0]  # comments stay


def test_going_back_to_the_demo_weights_restores_the_config(repository, tmp_path):
    file = config_file(repository, "rfdetr_detector", "cpu")
    before = read_config(file)
    path = tmp_path / "club.onnx"
    write_detector(path, "person,ball", side=384, queries=300)
    use_path(repository, "rfdetr_detector", path, "cpu")
    assert read_config(file) != before
    (demo,) = read_registry().find(["demo-detector"])
    use_entry(demo, repository, repository, "cpu")
    assert parameter(read_config(file), "weights") == "weights/demo.onnx"
    assert read_config(file).input == before.input
    assert read_config(file).output == before.output
    assert parameter(read_config(file), "thresholds") == parameter(before, "thresholds")


@pytest.mark.parametrize("name", ["demo-tracker", "demo-jersey", "demo-siglip"])
def test_the_committed_configs_serve_the_demo_weights(name, repository):
    (demo,) = read_registry().find([name])
    before = [read_config(config_file(repository, model, "cpu")) for model in demo.models]
    after = [read_config(file) for file in use_entry(demo, repository, repository, "cpu")]
    assert after == before


def test_a_siglip_checkpoint_serves_both_towers(repository, tmp_path):
    config = '{"model_type": "siglip", "text_config": {}, "vision_config": {"image_size": 224}}'
    contents = {"config.json": config.encode(), "model.safetensors": b"tensors"}
    folder = tmp_path / "store" / "siglip"
    entry = registered("siglip-base-patch16-224", contents, folder)
    use_entry(entry, folder, repository, "cpu")

    config = served(repository, "siglip_embedder")
    assert parameter(config, "weights") == "weights/siglip-base-patch16-224"
    assert list(config.input[0].dims) == [224, 224, 3]
    assert list(config.output[0].dims) == [768]
    assert list(served(repository, "siglip_text").output[0].dims) == [768]
    linked = repository / "siglip_text/weights/siglip-base-patch16-224/model.safetensors"
    assert linked.read_bytes() == b"tensors"


def test_a_sam2_checkpoint_keeps_its_name_beside_the_model(repository, tmp_path):
    folder = tmp_path / "store"
    entry = registered("sam2.1-hiera-tiny", {"sam2.1_hiera_tiny.pt": b"tensors"}, folder)
    use_entry(entry, folder, repository, "default")
    config = served(repository, "sam2_tracker", "default")
    assert parameter(config, "weights") == "weights/sam2.1_hiera_tiny.pt"
    assert parameter(config, "image_size") == "512"


def test_a_published_sam2_after_our_own_gets_pictures_that_it_can_see_in(repository, tmp_path):
    (demo,) = read_registry().find(["demo-tracker"])
    use_entry(demo, repository, repository, "default")
    assert parameter(served(repository, "sam2_tracker", "default"), "image_size") == "128"
    entry = registered("sam2.1-hiera-tiny", {"sam2.1_hiera_tiny.pt": b"tensors"}, tmp_path / "s")
    (file,) = use_entry(entry, tmp_path / "s", repository, "default")
    assert parameter(read_config(file), "image_size") == "512"
    file.write_text(file.read_text().replace('"512"', '"256"'))  # as its user prefers
    use_entry(entry, tmp_path / "s", repository, "default")
    assert parameter(read_config(file), "image_size") == "256"


def test_a_store_of_links_serves_what_they_point_to(repository, tmp_path):
    entry = registered("sam2.1-hiera-tiny", {"sam2.1_hiera_tiny.pt": b"tensors"}, tmp_path / "blob")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "sam2.1_hiera_tiny.pt").symlink_to("../blob/sam2.1_hiera_tiny.pt")
    use_entry(entry, tmp_path / "store", repository, "default")
    weights = repository / "sam2_tracker" / "weights" / "sam2.1_hiera_tiny.pt"
    assert weights.read_bytes() == b"tensors"


def test_a_config_in_another_layout_is_rewritten_or_refused(repository, tmp_path):
    path = tmp_path / 'a "quoted" name.onnx'
    write_detector(path, "person,ball", side=512, queries=60)
    file = config_file(repository, "rfdetr_detector", "cpu")
    text = file.read_text()
    before = 'parameters { key: "weights" value { string_value: "weights/demo.onnx" } }'
    lines = 'parameters: {\n  key: "weights"\n  value: {\n    string_value: "old"\n  }\n}'
    file.write_text(text.replace(before, lines))
    use_path(repository, "rfdetr_detector", path, "cpu")
    assert parameter(read_config(file), "weights") == str(path)

    turned = 'parameters { value { string_value: "weights/demo.onnx" } key: "weights" }'
    file.write_text(text.replace(before, turned))
    with pytest.raises(InputError, match="cpu.pbtxt: parameter weights: expected the form"):
        use_path(repository, "rfdetr_detector", path, "cpu")
    assert file.read_text() == text.replace(before, turned)


@pytest.mark.parametrize(
    ("model", "weights", "complaint"),
    [
        (
            "rfdetr_detector",
            "resnet_jersey/weights/demo.onnx",
            "the weights of rfdetr_detector",
        ),
        ("rfdetr_detector", "sam2_tracker/weights/demo.safetensors", "an ONNX file"),
        ("resnet_jersey", "siglip_text/weights/demo", "an ONNX file"),
        ("siglip_embedder", "resnet_jersey/weights/demo.onnx", "a SigLIP folder"),
        ("sam2_tracker", "resnet_jersey/weights/demo.onnx", "a SAM2 checkpoint"),
    ],
)
def test_weights_of_another_model_are_refused(repository, model, weights, complaint):
    file = config_file(repository, model, "cpu")
    before = file.read_text()
    with pytest.raises(InputError, match=f"{weights}: expected {complaint}"):
        use_path(repository, model, repository / weights, "cpu")
    assert file.read_text() == before


def test_a_graph_with_free_sizes_is_refused(repository, tmp_path):
    import onnx

    path = tmp_path / "free.onnx"
    write_detector(path, "person,ball", side=512, queries=60)
    graph = onnx.load(path)
    graph.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "height"
    onnx.save(graph, path)
    with pytest.raises(InputError, match="cpu.pbtxt: the weights do not fit into it: .*height"):
        use_path(repository, "rfdetr_detector", path, "cpu")


def test_weights_whose_copy_is_cut_off_leave_those_before(repository, tmp_path, monkeypatch):
    entry = registered("sam2.1-hiera-tiny", {"sam2.1_hiera_tiny.pt": b"weights"}, tmp_path / "s")
    use_entry(entry, tmp_path / "s", repository, "default")
    use_entry(entry, tmp_path / "s", repository, "default")  # the same again changes nothing
    weights = repository / "sam2_tracker" / "weights"
    before = {path.name: path.read_bytes() for path in weights.iterdir()}
    assert before["sam2.1_hiera_tiny.pt"] == b"weights"

    def full_disk(_, path):
        path.write_bytes(b"wei")
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "link", full_disk)  # as between file systems
    monkeypatch.setattr(shutil, "copyfile", full_disk)
    with pytest.raises(OSError, match="no space"):
        use_entry(entry, tmp_path / "s", repository, "default")
    assert {path.name: path.read_bytes() for path in weights.iterdir()} == before


def test_weights_that_are_not_here_are_named(repository, tmp_path):
    (published,) = read_registry().find(["sam2.1-hiera-tiny"])
    with pytest.raises(InputError, match=r"not the registered ones:\n.*hiera_tiny.pt: missing"):
        use_entry(published, tmp_path, repository, "cpu")


def test_a_starting_point_of_training_cannot_be_served(repository, tmp_path):
    (start,) = read_registry().find(["rf-detr-nano"])
    with pytest.raises(InputError, match="fine-tune from them"):
        use_entry(start, tmp_path, repository, "cpu")


def test_an_engine_is_not_chosen_by_weights(repository):
    onnx = repository / "rfdetr_detector" / "weights" / "demo.onnx"
    with pytest.raises(InputError, match="config.pbtxt: has no parameter `weights`"):
        use_path(repository, "rfdetr_detector", onnx, "default")


def test_missing_weights_and_unknown_models_are_named(repository, tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.onnx: expected the weights of resnet_jersey"):
        use_path(repository, "resnet_jersey", tmp_path / "nowhere.onnx", "cpu")
    with pytest.raises(InputError, match="no_model: expected configs/cpu.pbtxt"):
        use_path(repository, "no_model", tmp_path, "cpu")


def test_a_file_that_is_no_network_is_not_made_to_serve(repository, tmp_path):
    junk = tmp_path / "junk.onnx"
    junk.write_bytes(b"junk")
    before = (repository / "resnet_jersey" / "configs" / "cpu.pbtxt").read_text()
    with pytest.raises(InputError, match=r"junk\.onnx: expected an ONNX file"):
        use_path(repository, "resnet_jersey", junk, "cpu")
    assert (repository / "resnet_jersey" / "configs" / "cpu.pbtxt").read_text() == before


@pytest.mark.parametrize("told", ["image_size", '["image_size"]'])
def test_a_compact_network_that_does_not_tell_its_sizes_is_not_made_to_serve(
    repository, tmp_path, told
):
    path = tmp_path / "odd.safetensors"
    save_file({"x": np.zeros(1, np.float32)}, path, metadata={"config": told})
    with pytest.raises(InputError, match=r"odd\.safetensors: expected a network's sizes"):
        use_path(repository, "sam2_tracker", path, "cpu")


def test_changed_weights_are_not_made_to_serve(repository, capsys):
    (repository / "resnet_jersey" / "weights" / "demo.onnx").write_bytes(b"tampered")
    arguments = ["weights", "use", "demo-jersey", "--model-repository", str(repository)]
    assert main(arguments) == 1
    assert "sha256" in capsys.readouterr().err


def test_the_command_rewrites_the_config(repository, tmp_path, capsys):
    path = tmp_path / "club.onnx"
    write_detector(path, "person,ball", side=512, queries=60)
    choice = f"rfdetr_detector={path}"
    assert main(["weights", "use", choice, "--model-repository", str(repository)]) == 0
    assert "cpu.pbtxt: now names these weights" in capsys.readouterr().out
    assert parameter(served(repository, "rfdetr_detector"), "weights") == str(path)
