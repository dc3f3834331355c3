"""What a run says of itself: CSV always, TensorBoard where installed, a bar on a terminal."""

import csv
import importlib.util
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.whole_file import whole

STEPS_CSV = "steps.csv"
SCORES_CSV = "scores.csv"
_STEP_COLUMNS = ("step", "stage", "loss", "learning_rate", "seconds")
_SCORE_COLUMNS = ("step", "score", "value")


def has_scores(run: Path, step: int) -> bool:
    """Say whether scores of a step lie in the folder of a run."""
    return any(int(row[0]) == step for row in _rows(run / SCORES_CSV, _SCORE_COLUMNS))


def _rows(path: Path, columns: tuple[str, ...]) -> list[list[str]]:
    """Return the rows of a log, if there is one; a full disk may have left a part of the last."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [r for r in csv.reader(file) if len(r) == len(columns) and r[0].isdecimal()]


class Journal:
    """Logs of one run; lines of steps that an interruption undid are dropped.

    Args:
        run: Folder of the run.
        step: Steps done so far.
        total: Steps of the whole run.
    """

    def __init__(self, run: Path, step: int, total: int) -> None:
        self._stack = ExitStack()
        self._steps = self._csv(run / STEPS_CSV, _STEP_COLUMNS, step)
        self._scores = self._csv(run / SCORES_CSV, _SCORE_COLUMNS, step)
        self._board = self._tensorboard(run, step)
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=total, completed=step)

    def __enter__(self) -> Self:
        self._stack.enter_context(self._bar)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def step(self, step: int, stage: str, loss: float, rate: float, seconds: float) -> None:
        """Note a finished step; `seconds` count from the start of this process's run."""
        self._steps.writerow([step, stage, repr(loss), repr(rate), f"{seconds:.1f}"])
        if self._board is not None:
            self._board.add_scalar("loss", loss, step)
            self._board.add_scalar("learning_rate", rate, step)
        self._bar.update(self._task, completed=step, description=f"{stage} loss {loss:.3f}")

    def scores(self, step: int, scores: Mapping[str, float]) -> None:
        """Note scores on held-out clips."""
        for name, value in scores.items():
            self._scores.writerow([step, name, repr(value)])
            if self._board is not None:
                self._board.add_scalar(f"held_out/{name}", value, step)

    def _csv(self, path: Path, columns: tuple[str, ...], step: int) -> Any:
        kept = [row for row in _rows(path, columns) if int(row[0]) <= step]
        with whole(path) as partial, partial.open("w", newline="") as file:
            csv.writer(file).writerows([columns, *kept])
        return csv.writer(self._stack.enter_context(path.open("a", newline="", buffering=1)))

    def _tensorboard(self, run: Path, step: int) -> Any:
        if importlib.util.find_spec("tensorboard") is None:
            return None
        from torch.utils.tensorboard import SummaryWriter

        return self._stack.enter_context(SummaryWriter(str(run), purge_step=step + 1))
