"""Calibrate the jersey network, and score it, on clips that it never saw."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.contracts import JERSEY_CROP
from orchestrator.types.pictures import Pixels
from training.data.crops import ROLES, CropSet, crop_set
from training.errors import InputError
from training.jersey.batches import NO_TENS, targets
from training.jersey.checkpoints import load
from training.jersey.net import HEADS, JerseyNet
from training.onnx_file import open_onnx
from training.run.crops import exact_batches

THRESHOLDS = (0.3, 0.5, 0.7, 0.9)

_TEMPERATURES = np.geomspace(0.4, 4.0, 60)
_OFFSETS = np.linspace(-6, 6, 241)

Reader = Callable[[Pixels], Sequence[Tensor]]
"""Crops uint8 `(n, height, width, 3)` to the logits of `HEADS` on the CPU."""


def evaluate(weights: Path, footage: Path, clips: Sequence[str]) -> dict[str, Any]:
    """Score a served graph or a trained network.

    Args:
        weights: `*.onnx`, or `jersey.pt` of training.
        footage: Folder of rendered clips with masks.
        clips: Names of the clips, none of which were learnt.

    Returns:
        See `scores`.
    """
    reader = onnx_reader(weights) if weights.suffix == ".onnx" else torch_reader(load(weights))
    with tempfile.TemporaryDirectory() as cache:
        return scores(reader, crop_set(footage, tuple(clips), Path(cache)))


def torch_reader(net: nn.Module) -> Reader:
    """Return what a network reads, on the device where it is."""
    device = next(net.parameters()).device

    def read(crops: Pixels) -> list[Tensor]:
        with torch.inference_mode():
            return [head.float().cpu() for head in net(torch.from_numpy(crops).to(device))]

    return read


def onnx_reader(path: Path) -> Reader:
    """Return what a graph reads in onnxruntime.

    Raises:
        InputError: The file is no jersey network.
    """
    session = open_onnx(path)
    tensors = [tensor.name for tensor in (*session.get_inputs(), *session.get_outputs())]
    if not {"crops", *HEADS} <= set(tensors):
        raise InputError(f"{path}: expected a jersey network, found the tensors {tensors}")

    def read(crops: Pixels) -> list[Tensor]:
        return [torch.from_numpy(head) for head in session.run(list(HEADS), {"crops": crops})]

    return read


def predict(reader: Reader, crops: CropSet) -> dict[str, Tensor]:
    """Return the logits of every crop, cut exactly and not augmented, by head."""
    chunks = [reader(batch) for batch in exact_batches(crops, JERSEY_CROP)]
    return {name: torch.cat([chunk[i] for chunk in chunks]) for i, name in enumerate(HEADS)}


def calibrate(net: JerseyNet, held_out: CropSet) -> dict[str, float]:
    """Make the beliefs of every head fit clips never seen; return the temperatures.

    Logits are divided by a temperature. The belief that a number is readable is shifted, too, since
    training shows readable numbers more often than matches do. A head without truth stays as it is.
    """
    logits = predict(torch_reader(net), held_out)
    truth = targets(held_out.attributes, held_out.number_visible)
    temperatures = {}
    for name in HEADS:
        known = truth[name] >= 0
        if not known.any():
            continue
        head, target = logits[name][known], truth[name][known]
        offset = best_offset(head[:, 0], target) if name == "number_visible" else 0.0
        temperatures[name] = best_temperature(head + offset, target)
        with torch.no_grad():
            linear: Any = net.heads[name]
            linear.bias.add_(offset)
            for weight in linear.parameters():
                weight.div_(temperatures[name])
    return temperatures


def best_temperature(logits: Tensor, truth: Tensor) -> float:
    """Return the temperature with the least cross entropy.

    Args:
        logits: float32 `(n, classes)`; one column stands for a yes-or-no head.
        truth: int64 `(n,)`.
    """
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    losses = [functional.cross_entropy(logits / t, truth) for t in _TEMPERATURES]
    return float(_TEMPERATURES[int(torch.stack(losses).argmin())])


def best_offset(logits: Tensor, truth: Tensor) -> float:
    """Return the shift after which as many are believed as are true; both `(n,)`."""
    means = torch.stack([(logits + o).sigmoid().mean() for o in _OFFSETS])
    return float(_OFFSETS[int((means - truth.float().mean()).abs().argmin())])


def scores(reader: Reader, held_out: CropSet) -> dict[str, Any]:
    """Return the scores of the model card's table on clips never seen."""
    logits, truth = predict(reader, held_out), targets(held_out.attributes, held_out.number_visible)
    visible = truth["number_visible"] >= 0
    return {
        "crops": len(held_out),
        "number_visible_average_precision": average_precision(
            logits["number_visible"][visible, 0].numpy(), truth["number_visible"][visible].numpy()
        ),
        "number": [number_score(logits, truth, threshold) for threshold in THRESHOLDS],
        "number_by_track": track_number_score(logits, truth, held_out.track),
        "role": role_score(logits["role"], truth["role"]),
        "kit_colour_accuracy": _accuracy(logits["kit_colour"], truth["kit_colour"]),
    }


def number_probability(logits: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the likeliest number of each crop, int64 `(n,)`, and the belief in it, `[0, 1]`."""
    tens, units = logits["tens"].softmax(1).max(1), logits["units"].softmax(1).max(1)
    number = _number(tens.indices, units.indices)
    return number, logits["number_visible"][:, 0].sigmoid() * tens.values * units.values


def number_score(
    logits: dict[str, Tensor], truth: dict[str, Tensor], threshold: float
) -> dict[str, float]:
    """Return precision of the numbers said at a threshold and their coverage of readable crops.

    A number said where none is readable counts as wrong; doubtful crops do not count.
    """
    number, belief = number_probability(logits)
    sure = truth["number_visible"] >= 0
    said = sure & (belief > threshold)
    is_same = number == _number(truth["tens"], truth["units"])
    right = said & (truth["number_visible"] == 1) & is_same
    return {
        "threshold": threshold,
        "precision": float(right.sum() / said.sum().clamp(min=1)),
        "coverage": float(right.sum() / (truth["number_visible"] == 1).sum().clamp(min=1)),
    }


def track_number_score(
    logits: dict[str, Tensor], truth: dict[str, Tensor], track: NDArray[np.int32]
) -> dict[str, float]:
    """Vote over each track, summing the beliefs above one half, and score it against the truth.

    Tracks with at least 3 readable crops are counted; a track is silent without a sure crop.
    """
    number, belief = (column.numpy() for column in number_probability(logits))
    true_number = _number(truth["tens"], truth["units"]).numpy()
    readable = truth["number_visible"].numpy() == 1
    said = right = tracks = 0
    for one in np.unique(track):
        rows = track == one
        if (rows & readable).sum() < 3:
            continue
        tracks += 1
        votes = np.bincount(number[rows], belief[rows] * (belief[rows] > 0.5), minlength=100)
        said += bool(votes.any())
        right += bool(votes.any() and votes.argmax() == true_number[rows & readable][0])
    return {"tracks": tracks, "said": said, "right": right}


def _number(tens: Tensor, units: Tensor) -> Tensor:
    """Put digits together."""
    return torch.where(tens == NO_TENS, 0, tens) * 10 + units


def role_score(logits: Tensor, truth: Tensor) -> dict[str, Any]:
    """Return accuracy, recall by role, and accuracy and share of the crops believed above .9."""
    belief, role = logits.softmax(1).max(1)
    sure = belief > 0.9
    return {
        "accuracy": _accuracy(logits, truth),
        "recall": {
            name: float((role[truth == i] == i).float().mean())
            for i, name in enumerate(ROLES)
            if (truth == i).any()
        },
        "accuracy_above_0.9": _share(role[sure] == truth[sure]),
        "share_above_0.9": _share(sure),
    }


def average_precision(score: NDArray[np.float32], is_positive: NDArray[np.int64]) -> float:
    """Return the mean of the precision at the rank of every positive; 0 if there is none."""
    hits = is_positive[np.argsort(-score)] == 1
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean()) if hits.any() else 0.0


def _accuracy(logits: Tensor, truth: Tensor) -> float | None:
    known = truth >= 0
    return _share(logits[known].argmax(1) == truth[known])


def _share(is_true: Tensor) -> float | None:
    return float(is_true.float().mean()) if len(is_true) else None
