"""The loop of our own trainings: stages of steps that a resumed run repeats to the bit.

Everything random in a step comes from the run's seed and the step's number, so nothing but the
weights, their average and the optimizer has to be kept.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from training.errors import InputError
from training.run.config import RunConfig, Stage
from training.run.folder import open_run
from training.run.hardware import Hardware
from training.run.journal import Journal, has_scores
from training.run.signals import Interruption, deferred, ignore_in_worker
from training.torch_file import load_torch, save_torch

Batch = dict[str, Tensor]
"""What one step is shown; tensors of any shape by name."""

CHECKPOINT = "checkpoint.pt"

_S = TypeVar("_S", bound=Stage)
_S_contra = TypeVar("_S_contra", bound=Stage, contravariant=True)


class Task(Protocol[_S_contra]):
    """What is learnt: a network, its batches, its loss, its scores."""

    @property
    def network(self) -> nn.Module:
        """Everything with weights; those that do not require a gradient stay as they are."""

    def draw(self, stage: _S_contra, rng: np.random.Generator) -> Batch:
        """Return a batch on the CPU; may be called in another process."""

    def loss(self, batch: Batch, stage: _S_contra) -> Tensor:
        """Return the loss, a scalar, of a batch on the run's device."""

    def scores(self, network: nn.Module) -> Mapping[str, float]:
        """Return scores on held-out clips of a copy of the network, in evaluation mode."""


def begin(config: RunConfig, work: Path) -> Path:
    """Seed what a network's first weights are drawn from; return the run's folder for the `Loop`.

    Raises:
        InputError: `work` holds a run of another config.
    """
    cv2.setNumThreads(1)  # its thread pool does not survive the fork of a drawing process
    torch.manual_seed(config.seed)
    return open_run(config, work)


class Loop(Generic[_S]):
    """A run that can be stopped after any step and gone on with.

    Args:
        task: What is learnt.
        stages: One or more; one after the other.
        config: How.
        run: Folder of the checkpoint and the logs, from `begin`.

    Raises:
        InputError: The checkpoint there is damaged.
    """

    def __init__(self, task: Task[_S], stages: Sequence[_S], config: RunConfig, run: Path) -> None:
        self._task, self._stages, self._config, self._run = task, stages, config, run
        self._hardware = Hardware.of(config)
        self._network = task.network.to(self._hardware.device).train()
        moving = get_ema_multi_avg_fn(config.ema_decay)  # type: ignore[no-untyped-call]
        self._average = AveragedModel(self._network, multi_avg_fn=moving)
        self._optimizer = self._fresh_optimizer()
        self._total = sum(stage.steps for stage in stages)
        self._step = self._resume()

    def run(self) -> nn.Module:
        """Train to the end; return the averaged network, in evaluation mode.

        Raises:
            KeyboardInterrupt: SIGINT or SIGTERM came; the state after the last step is saved.
            OSError: A checkpoint or log cannot be written; the checkpoint before stays.
            InputError: The loss is no longer finite.
        """
        # A checkpoint is saved before its scores, so that a kill in between owes them.
        owes_scores = (
            self._step > 0 and self._is_score_due() and not has_scores(self._run, self._step)
        )
        if self._step < self._total or owes_scores:
            with Journal(self._run, self._step, self._total) as journal, deferred() as interruption:
                if owes_scores:
                    self._score(journal)
                self._train(journal, interruption)
        return self._average.module.eval()

    def _train(self, journal: Journal, interruption: Interruption) -> None:
        started = saved = time.monotonic()
        for batch in self._batches():
            stage, within = locate(self._stages, self._step)
            rate = stage.rate(within)
            value = self._update(batch, stage, rate, restart=stage.restart and within == 0)
            self._step += 1
            now = time.monotonic()
            journal.step(self._step, stage.name, value, rate, now - started)
            is_due, is_stopping = self._is_score_due(), interruption.is_wanted
            if is_due or is_stopping or now - saved > self._config.checkpoint_seconds:
                saved = now
                self._save()  # before the scores, which may take minutes
            if is_due:
                self._score(journal)
            if is_stopping:
                raise KeyboardInterrupt

    def _score(self, journal: Journal) -> None:
        journal.scores(self._step, self._task.scores(self._average.module.eval()))

    def _batches(self) -> Iterator[Batch]:
        device = self._hardware.device
        loader: DataLoader[Batch] = DataLoader(
            _Draws(self._task.draw, self._stages, self._config.seed),
            batch_size=None,
            sampler=range(self._step, self._total),
            num_workers=self._config.workers,
            pin_memory=device.type == "cuda",
            worker_init_fn=ignore_in_worker,
        )
        for batch in loader:
            yield {name: value.to(device, non_blocking=True) for name, value in batch.items()}

    def _update(self, batch: Batch, stage: _S, rate: float, *, restart: bool) -> float:
        if restart:
            self._network.load_state_dict(self._average.module.state_dict())
            self._optimizer = self._fresh_optimizer()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(_seed(self._config.seed, self._step))  # for dropout
        loss = self._task.loss(batch, stage)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise InputError(
                f"step {self._step}: expected a finite loss, got {value}; "
                f"lower learning_rate of stage {stage.name}"
            )
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        if self._config.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self._network.parameters(), self._config.gradient_clip)
        self._optimizer.step()
        self._average.update_parameters(self._network)
        return value

    def _fresh_optimizer(self) -> torch.optim.AdamW:
        weights = [weight for weight in self._network.parameters() if weight.requires_grad]
        return torch.optim.AdamW(
            weights, weight_decay=self._config.weight_decay, betas=self._config.betas
        )

    def _is_score_due(self) -> bool:
        every = self._config.evaluate_steps
        return self._step == self._total or bool(every and self._step % every == 0)

    def _parts(self) -> dict[str, Any]:
        return {
            "network": self._network,
            "average": self._average,
            "optimizer": self._optimizer,
        }

    def _save(self) -> None:
        state = {name: part.state_dict() for name, part in self._parts().items()}
        save_torch({**state, "step": self._step}, self._run / CHECKPOINT)

    def _resume(self) -> int:
        path = self._run / CHECKPOINT
        if not path.exists():
            return 0
        state = load_torch(path)  # AdamW counts its steps on the CPU: on a GPU each would wait
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        return int(state["step"])


class _Draws(Dataset[Batch]):
    """The batch of every step, each from a generator of its own."""

    def __init__(
        self,
        draw: Callable[[Any, np.random.Generator], Batch],
        stages: Sequence[Stage],
        seed: int,
    ) -> None:
        self._draw, self._stages, self._seed = draw, stages, seed

    @override
    def __getitem__(self, step: int) -> Batch:
        stage, _ = locate(self._stages, step)
        return self._draw(stage, np.random.default_rng((self._seed, step)))


def locate(stages: Sequence[_S], step: int) -> tuple[_S, int]:
    """Return the stage that a step of the run belongs to, and its number within the stage."""
    ends = list(itertools.accumulate(stage.steps for stage in stages))
    index = next(i for i, end in enumerate(ends) if step < end)
    return stages[index], step - (ends[index] - stages[index].steps)


def _seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence((seed, step)).generate_state(1)[0])
