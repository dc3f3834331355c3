import json

import pytest
import torch
from safetensors.torch import save_file
from sam2_streaming import architecture
from sam2_streaming.architecture import CompactConfig, WeightsError

SMALL = CompactConfig(image_size=64, channels=64, embed_dim=8)


@pytest.fixture(scope="module")
def official_tensors():
    return architecture.random_official("sam2.1_hiera_tiny", 256).state_dict()


def test_a_published_checkpoint_loads_by_its_name(tmp_path, official_tensors):
    path = tmp_path / "sam2.1_hiera_tiny.pt"
    torch.save({"model": official_tensors}, path)
    for weights in (path, tmp_path):
        network = architecture.load(weights, image_size=128)
        assert network.image_size == 128
        assert not network.training
    name = "memory_attention.layers.0.linear1.weight"
    torch.testing.assert_close(network.state_dict()[name], official_tensors[name])


def test_a_checkpoint_that_lacks_tensors_is_refused(tmp_path, official_tensors):
    path = tmp_path / "sam2.1_hiera_tiny.pt"
    torch.save({"model": dict(list(official_tensors.items())[1:])}, path)
    with pytest.raises(WeightsError, match=r"sam2.1_hiera_tiny.pt: does not fit.*Missing key"):
        architecture.load(path)


def test_a_checkpoint_under_another_models_name_is_refused(tmp_path, official_tensors):
    path = tmp_path / "sam2.1_hiera_base_plus.pt"
    torch.save({"model": official_tensors}, path)
    with pytest.raises(WeightsError, match="does not fit its network"):
        architecture.load(path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
@pytest.mark.parametrize("name", ["sam2.1_hiera_tiny.pt", "demo.safetensors"])
def test_damaged_files_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=f"{name}: expected"):
        architecture.load(tmp_path / name)


def test_compact_weights_carry_their_architecture(tmp_path):
    network = architecture.random_compact(SMALL)
    path = tmp_path / "demo.safetensors"
    architecture.save_compact(network, SMALL, path)
    loaded = architecture.load(tmp_path)
    assert loaded.image_size == 64
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor.half().float())
    with pytest.raises(WeightsError, match="image_size 64, not 256"):
        architecture.load(path, image_size=256)


def test_a_truncated_compact_file_is_refused(tmp_path):
    path = tmp_path / "demo.safetensors"
    architecture.save_compact(architecture.random_compact(SMALL), SMALL, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="complete safetensors"):
        architecture.load(path)


def test_safetensors_without_an_architecture_are_refused(tmp_path):
    path = tmp_path / "demo.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="metadata 'architecture'"):
        architecture.load(path)


def test_missing_and_ambiguous_weights_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="no such file"):
        architecture.load(tmp_path / "nowhere.pt")
    with pytest.raises(WeightsError, match="expected one weights file, found none"):
        architecture.load(tmp_path)
    for name in ("a.safetensors", "b.safetensors"):
        (tmp_path / name).touch()
    with pytest.raises(WeightsError, match="found .*a.safetensors.*b.safetensors"):
        architecture.load(tmp_path)


def test_every_published_architecture_builds():
    sizes = {
        name: sum(p.numel() for p in architecture.random_official(name, 256).parameters())
        for name in ("sam2.1_hiera_tiny", "sam2.1_hiera_small", "sam2.1_hiera_base_plus")
    }
    millions = {name: round(size / 1e6, 1) for name, size in sizes.items()}
    assert millions == {
        "sam2.1_hiera_tiny": 39.0,
        "sam2.1_hiera_small": 46.1,
        "sam2.1_hiera_base_plus": 80.9,
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [("image_size", 100), ("image_size", 0), ("memory_frames", 1), ("pointers", 1)],
)
def test_sizes_that_make_no_network_are_refused(tmp_path, field, value):
    with pytest.raises(ValueError, match=f"{field}: expected"):
        CompactConfig(**{field: value})
    metadata = {"architecture": json.dumps({field: value})}
    save_file({"x": torch.zeros(1)}, tmp_path / "demo.safetensors", metadata=metadata)
    with pytest.raises(WeightsError, match=r"demo.safetensors: expected metadata"):
        architecture.load(tmp_path)
