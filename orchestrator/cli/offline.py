"""The door to the offline side: a process of its own, since nothing that serves imports it."""

import os
import sys
from pathlib import Path
from typing import NoReturn

from orchestrator.errors import TouchlineError

COMMANDS = {
    "data": "check, count, convert or show labelled footage",
    "train": "fine-tune one of the four models",
    "evaluate": "score a recognised clip, or a model, against truth",
    "export": "write a checkpoint as the ONNX graph that is served",
    "engine": "build a TensorRT engine, gated on its accuracy",
    "weights": "list, fetch, verify and choose weights",
}
"""The commands of `python -m training`, with their one-line help."""

_ROOT = Path(__file__).resolve().parents[2]


def run_offline(arguments: list[str]) -> NoReturn:
    """Replace this process by `python -m training ARGUMENTS`.

    Raises:
        TouchlineError: The offline side is not installed beside the serving one.
    """
    if not (_ROOT / "training" / "__main__.py").is_file():
        raise TouchlineError(f"{arguments[0]}: the folder training/ is missing in {_ROOT}")
    # First on the path: some wheels bring a top-level package `training` of their own.
    ours = [str(_ROOT), str(_ROOT / "model_repository" / "sam2_tracker")]
    path = os.pathsep.join([*ours, *filter(None, [os.environ.get("PYTHONPATH")])])
    # Safe path: `-m` would put the working directory before ours.
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    os.execve(sys.executable, [sys.executable, "-m", "training", *arguments], environment)
