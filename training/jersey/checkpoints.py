"""Files that a jersey network starts from and ends in."""

from pathlib import Path
from typing import Any

from training.errors import InputError
from training.jersey.net import JerseyNet
from training.torch_file import load_torch, save_torch


def start(backbone: str, init: Path | None) -> JerseyNet:
    """Return the network to train.

    Args:
        backbone: A key of `BACKBONES`.
        init: torchvision's state dict of the backbone (`resnet18-f37072fd.pth`) or a file of
            `save`; None starts from nothing.

    Raises:
        InputError: The file is missing, damaged or of another backbone.
    """
    if init is None:
        return JerseyNet(backbone)
    content = _read(init)
    if "backbone" not in content:
        net = JerseyNet(backbone)
        try:
            net.load_backbone(init)
        except ValueError as error:
            raise InputError(f"init: {error}") from error
        return net
    if content["backbone"] != backbone:
        raise InputError(f"init: {init}: expected backbone {backbone}, not {content['backbone']}")
    return load(init)


def save(net: JerseyNet, path: Path) -> Path:
    """Write the weights with the name of their backbone; the file appears complete or not at all.

    Returns:
        `path`.
    """
    save_torch({"backbone": net.backbone_name, "weights": net.state_dict()}, path)
    return path


def load(path: Path) -> JerseyNet:
    """Return the network of a file of `save`, in evaluation mode.

    Raises:
        InputError: It is no such file.
    """
    content = _read(path)
    try:
        net = JerseyNet(content["backbone"])
        net.load_state_dict(content["weights"])
    except (KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: expected a jersey.pt of training: {error}") from error
    return net.eval()


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: expected a file of weights")
    content = load_torch(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a PyTorch state dict, got {type(content).__name__}")
    return content
