r"""Train the compact SAM2 of window mode from scratch on rendered clips, on one CPU core.

    PYTHONPATH=model_repository/sam2_tracker \
        python -m training.tracker.train --footage DIR --work DIR --minutes 40 --seed 0

Memory is trained by back-propagation through whole tracklets. `--work` holds the extracted
squares, `last.pt` (training resumes from it) and `demo.safetensors`.
"""

import argparse
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from sam2.modeling.sam2_base import SAM2Base
from sam2_streaming.architecture import CompactConfig, random_compact, save_compact
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.tracker.objective import Outputs, loss, mask_iou, noisy_boxes, track
from training.tracker.squares import extract
from training.tracker.tracklets import MIN_MASK_PX, Difficulty, Tracklets

_log = logging.getLogger(__name__)

HELD_OUT_CLIPS = ("dev_05", "dev_13", "dev_14", "dev_18", "dev_22")
TRAINING_CLIPS = tuple(
    name for name in (f"dev_{i:02d}" for i in range(1, 31)) if name not in HELD_OUT_CLIPS
)
WINDOWS_PER_STEP = 64
TRACKLET_FRAMES = 6
PAIRS_SHARE = 0.25
"""Share of the schedule with tracklets of two frames: masks first, then memory."""
LEARNING_RATE = 8e-4
CHECKPOINT_SECONDS = 120.0
EVALUATION_SECONDS = 480.0

VALIDATION = {
    "all": Difficulty(0, 0, 0, 0, augmented=False),
    "crowded": Difficulty(1, 0, 0, 0, augmented=False),
    "slipping": Difficulty(1, 1, 0, 0, augmented=False),
    "crossed": Difficulty(0, 0, 1, 0, augmented=False),
}


@torch.no_grad()
def evaluate(network: SAM2Base, held_out: Tracklets) -> dict[str, list[float]]:
    """Mean IoU per frame of held-out tracklets, and how well presence separates.

    Returns:
        By validation set, the mean IoU of frames 0 to 5; under `presence_recall` and
        `absence_recall`, the share of visible and of absent frames judged right.
    """
    network.eval()
    scores: dict[str, list[float]] = {}
    for name, difficulty in VALIDATION.items():
        outputs, masks = _held_out_run(network, held_out, difficulty)
        iou = mask_iou(outputs.logits, masks)
        iou[masks.sum((-1, -2)) < MIN_MASK_PX] = torch.nan
        scores[name] = [round(float(v), 3) for v in iou.nanmean(1)]
    outputs, masks = _held_out_run(network, held_out, Difficulty(0, 0, 1, 1, augmented=False))
    present, said = masks.sum((-1, -2)) >= MIN_MASK_PX, outputs.presence > 0
    scores["presence_recall"] = [round(float(said[present].float().mean()), 3)]
    scores["absence_recall"] = [round(float((~said)[~present].float().mean()), 3)]
    network.train()
    return scores


def _held_out_run(
    network: SAM2Base, held_out: Tracklets, difficulty: Difficulty
) -> tuple[Outputs, Tensor]:
    drawn = held_out.batch(np.random.default_rng(1), 72, TRACKLET_FRAMES, difficulty)
    pictures, masks = (torch.from_numpy(x) for x in drawn)
    boxes = noisy_boxes(masks[0], 0.03, torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        return track(network, pictures, boxes, 1), masks


class Trainer:
    """A resumable run over a fixed time budget.

    Args:
        work: Folder of squares, checkpoint and exported weights.
        minutes: Training time over all resumed runs together.
        seed: Of initialisation and sampling.
    """

    def __init__(self, work: Path, minutes: float, seed: int) -> None:
        torch.manual_seed(seed)
        self._work, self._budget, self._seed = work, minutes * 60, seed
        self._config = CompactConfig()
        self._network = random_compact(self._config).train()
        # Start as "in sight": a network that says "absent" gets no gradient for its mask.
        torch.nn.init.constant_(
            self._network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias, 3.0
        )
        moving_average = get_ema_multi_avg_fn(0.99)  # type: ignore[no-untyped-call]
        self._average = AveragedModel(self._network, multi_avg_fn=moving_average)
        self._optimizer = torch.optim.AdamW(
            self._network.parameters(), lr=LEARNING_RATE, weight_decay=0.02, betas=(0.9, 0.98)
        )
        self._step, self._spent = 0, 0.0
        if self._checkpoint.exists():
            self._resume()

    @property
    def _checkpoint(self) -> Path:
        return self._work / "last.pt"

    def run(self) -> None:
        """Train until the budget is spent; write checkpoints, scores and weights on the way."""
        training = Tracklets(self._work / "train", self._config.image_size)
        held_out = Tracklets(self._work / "held_out", self._config.image_size)
        saved = evaluated = self._spent
        while self._spent < self._budget:
            started = time.monotonic()
            value = self._train_step(training)
            self._spent += time.monotonic() - started
            if self._step % 20 == 0:
                _log.info("%.0f s, step %d, loss %.3f", self._spent, self._step, value)
            if self._spent - saved > CHECKPOINT_SECONDS:
                saved = self._spent
                self._save()
            if self._spent - evaluated > EVALUATION_SECONDS:
                evaluated = self._spent
                _log.info("held out: %s", evaluate(self._average.module, held_out))
        self._save()
        _log.info("held out, final: %s", evaluate(self._average.module, held_out))

    def _train_step(self, tracklets: Tracklets) -> float:
        progress = self._spent / self._budget
        frames = 2 if progress < PAIRS_SHARE else TRACKLET_FRAMES
        slipping = 0.0 if progress < PAIRS_SHARE else 0.6
        rate = LEARNING_RATE * min(1, (self._step + 1) / 60)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * (0.5 + 0.5 * math.cos(math.pi * min(progress, 1))) + 1e-5
        # A generator per step makes a resumed run draw what an unbroken one would.
        rng = np.random.default_rng((self._seed, self._step))
        drawn = tracklets.batch(
            rng, WINDOWS_PER_STEP // frames, frames, Difficulty(slipping=slipping)
        )
        pictures, masks = (torch.from_numpy(x) for x in drawn)
        boxes = noisy_boxes(masks[0], 0.06, torch.Generator().manual_seed(self._step))
        old = rng.random() < 0.5
        first_age = int(np.exp(rng.uniform(0, np.log(400)))) if old else 1
        with torch.autocast("cpu", torch.bfloat16), fast_attention_backward():
            value = loss(track(self._network, pictures, boxes, first_age), masks)
        self._optimizer.zero_grad()
        torch.autograd.backward(value)
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
        self._optimizer.step()
        self._average.update_parameters(self._network)
        self._step += 1
        return float(value.detach())

    def _save(self) -> None:
        state = {
            "network": self._network.state_dict(),
            "average": self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "step": self._step,
            "spent": self._spent,
        }
        partial = self._checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self._checkpoint)
        save_compact(self._average.module, self._config, self._work / "demo.safetensors")

    def _resume(self) -> None:
        state = torch.load(self._checkpoint, weights_only=True)
        self._network.load_state_dict(state["network"])
        self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._step, self._spent = state["step"], state["spent"]
        _log.info("resumed at step %d, %.0f s", self._step, self._spent)


@contextmanager
def fast_attention_backward() -> Iterator[None]:
    """Choose the plain attention kernel: the fused one is slow backwards at 64 tokens on CPU."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        yield


def main() -> None:
    """Extract the squares if need be, then train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--footage", type=Path, required=True, help="folder of rendered clips")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    extract(arguments.footage, TRAINING_CLIPS, arguments.work / "train")
    extract(arguments.footage, HELD_OUT_CLIPS, arguments.work / "held_out")
    Trainer(arguments.work, arguments.minutes, arguments.seed).run()


if __name__ == "__main__":
    main()
