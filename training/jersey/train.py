"""Train the jersey network on the rendered clips, from scratch.

`python -m training.jersey.train --footage DIR --work DIR --minutes 10` trains a ResNet-10, calibrates
it, prints its scores on held-out clips and writes `jersey.pt`, `jersey.onnx` and `jersey.json` (the
scores) into the work folder.
"""

import argparse
import itertools
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training.data.crops import HELD_OUT, TRAINING, CropSet, crop_set
from training.jersey.batches import IGNORED, batches, close_up_batches
from training.jersey.evaluate import calibrate, scores
from training.jersey.net import JerseyNet, export

PROVENANCE = (
    "ResNet-10 (torchvision classes), trained from scratch on rendered Google Research Football "
    "clips by training/jersey/train.py; no pretrained weights; Apache-2.0"
)

_PEAK_RATE = 2e-3
_WEIGHT_DECAY = 0.02
_LABEL_SMOOTHING = 0.02


def loss(logits: tuple[Tensor, ...], truth: dict[str, Tensor]) -> Tensor:
    """Return the sum of the heads' mean cross entropies over the rows that have a truth."""
    total = torch.zeros(())
    for (name, target), predicted in zip(truth.items(), logits, strict=True):
        known = target != IGNORED
        if not known.any():
            continue
        if name == "number_visible":
            total = total + functional.binary_cross_entropy_with_logits(
                predicted[known, 0], target[known].float()
            )
        else:
            total = total + functional.cross_entropy(
                predicted[known], target[known], label_smoothing=_LABEL_SMOOTHING
            )
    return total


def train(net: JerseyNet, crops: CropSet, *, minutes: float, close_ups: float, seed: int) -> None:
    """Train for a wall time; the rate follows one cycle over that time.

    The first share of the time, `close_ups`, shows close-ups of numbers. They cost a quarter of a
    whole crop, and digits are learnt from them in a fraction of the steps, since nothing else is
    in sight.
    """
    net.train()
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=_WEIGHT_DECAY)
    start = time.monotonic()
    rng = np.random.default_rng(seed)
    close, whole = close_up_batches(crops, rng), batches(crops, rng)
    for step in itertools.count():
        progress = (time.monotonic() - start) / (60 * minutes)
        if progress >= 1:
            break
        pixels, truth = next(close if progress < close_ups else whole)
        optimizer.param_groups[0]["lr"] = one_cycle(progress, _PEAK_RATE)
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(pixels)
        value = loss(tuple(head.float() for head in logits), truth)
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % 50 == 0:
            print(f"{progress:.0%} step {step} loss {value.item():.3f}", flush=True)  # noqa: T201
    net.eval()


def one_cycle(progress: float, peak: float) -> float:
    """Return the learning rate at `progress` in `[0, 1]`: 5 % linear rise, then a cosine to 0."""
    warm = 0.05
    if progress < warm:
        return peak * max(progress / warm, 0.02)
    return float(peak * (0.5 + 0.5 * np.cos(np.pi * (progress - warm) / (1 - warm))))


def main() -> None:
    """Train, calibrate, score and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--footage", type=Path, required=True, help="folder of rendered clips")
    parser.add_argument("--work", type=Path, required=True, help="folder for crops and results")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--close-ups", type=float, default=0.5, help="share of the time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--init", type=Path, help="a jersey.pt to go on from")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    net = JerseyNet()
    if options.init is not None:
        net.load_state_dict(torch.load(options.init, weights_only=True))
    cache = options.work / "crops"
    training = crop_set(options.footage, TRAINING, cache / "training")
    train(
        net,
        training,
        minutes=options.minutes,
        close_ups=options.close_ups,
        seed=options.seed,
    )
    torch.save(net.state_dict(), options.work / "jersey.pt")
    held_out = crop_set(options.footage, HELD_OUT, cache / "held_out")
    calibrate(net, held_out)
    export(net, options.work / "jersey.onnx", PROVENANCE)
    report = scores(net, held_out)
    (options.work / "jersey.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
