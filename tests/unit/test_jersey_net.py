"""The jersey network is torchvision's ResNet, and its export keeps the contract."""

import numpy as np
import pytest
import torch
from torchvision.models import resnet18, resnet50

from orchestrator.contracts import RESNET_JERSEY
from training.jersey.net import HEADS, JerseyNet


@pytest.fixture
def crops():
    return np.random.default_rng(0).integers(0, 256, (3, 128, 64, 3), np.uint8)


def test_heads_are_the_contract_s_outputs():
    outputs = [(spec.name, *spec.dims) for spec in RESNET_JERSEY.outputs]
    assert list(HEADS.items()) == outputs


@pytest.mark.parametrize(("name", "official"), [("resnet18", resnet18), ("resnet50", resnet50)])
def test_an_official_state_dict_loads_into_the_backbone(tmp_path, name, official):
    model = official(weights=None)
    torch.save(model.state_dict(), tmp_path / f"{name}.pth")
    net = JerseyNet(name)
    net.load_backbone(tmp_path / f"{name}.pth")
    for key, value in net.backbone.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key


def test_the_state_dict_of_another_architecture_is_refused(tmp_path):
    path = tmp_path / "resnet50.pth"
    torch.save(resnet50(weights=None).state_dict(), path)
    with pytest.raises(ValueError, match=r"resnet50\.pth: expected torchvision's state dict"):
        JerseyNet("resnet18").load_backbone(path)


def test_the_stem_halves_a_crop_once_so_that_digits_keep_their_strokes(crops):
    backbone = JerseyNet().backbone
    pixels = torch.from_numpy(crops).float().permute(0, 3, 1, 2)
    with torch.inference_mode():
        assert backbone.maxpool(backbone.conv1(pixels)).shape[2:] == (64, 32)


def test_an_unknown_backbone_is_refused():
    with pytest.raises(ValueError, match="'resnet9': expected one of resnet10, resnet18"):
        JerseyNet("resnet9")


def test_pixels_are_normalised_as_torchvision_s_weights_expect(crops):
    net = JerseyNet().eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = ((torch.from_numpy(crops) / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        features = net.backbone(pixels)
        expected = net.heads["role"](features)
        found = dict(zip(HEADS, net(torch.from_numpy(crops)), strict=True))
    torch.testing.assert_close(found["role"], expected, rtol=1e-4, atol=1e-4)
