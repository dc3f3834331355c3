"""Files of `torch.save`: they appear complete or not at all, and junk is named."""

from pathlib import Path
from typing import Any

import torch

from training.errors import InputError
from training.whole_file import whole


def save_torch(content: Any, path: Path) -> None:
    """Write what `torch.save` takes.

    Args:
        content: Tensors in dicts, lists and the like.
        path: The file to appear or to be replaced.

    Raises:
        OSError: It cannot be written; of a full disk torch itself would not tell.
    """
    try:
        with whole(path) as partial, partial.open("wb") as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        reason = error if isinstance(error, OSError) else error.__context__
        if isinstance(reason, OSError):
            raise OSError(reason.errno, reason.strerror, str(path)) from error
        raise


def load_torch(path: Path) -> Any:
    """Return what lies in a file of tensors, on the CPU; no code in it is run.

    Raises:
        OSError: The file cannot be opened.
        InputError: It is damaged, or no such file.
    """
    with path.open("rb") as file:
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # what the unpickler raises depends on the junk
            raise InputError(f"{path}: expected a PyTorch state dict: {error!r:.200}") from error
