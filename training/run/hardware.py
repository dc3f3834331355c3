"""Where the network runs and in which precision."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from training.errors import InputError
from training.run.config import RunConfig


@dataclass(frozen=True, slots=True)
class Hardware:
    """A device and how exactly it multiplies.

    Attributes:
        device: `cpu` or `cuda`.
        is_mixed: Whether matrix products are bf16.
    """

    device: torch.device
    is_mixed: bool

    @classmethod
    def of(cls, config: RunConfig) -> "Hardware":
        """Return what a config asks for.

        Raises:
            InputError: It asks for a GPU and there is none.
        """
        has_gpu = torch.cuda.is_available()
        if config.device == "cuda" and not has_gpu:
            raise InputError("device: expected auto or cpu, since PyTorch finds no NVIDIA GPU")
        name = ("cuda" if has_gpu else "cpu") if config.device == "auto" else config.device
        return cls(torch.device(name), config.precision == "bf16")

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which the forward pass belongs."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_mixed)
