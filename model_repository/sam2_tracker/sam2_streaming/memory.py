"""What one object remembers of its own past: bounded, immutable, cheap to step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from sam2.modeling.sam2_base import SAM2Base
from sam2.modeling.sam2_utils import get_1d_sine_pe
from torch import Tensor


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """How much an object remembers beside its prompt: mask memories and object pointers."""

    maps: int
    pointers: int


@dataclass(frozen=True, slots=True)
class ObjectMemory:
    """The prompt's memory, kept for good, and a ring of the latest frames.

    An object is stepped on every frame of its stream, so entry `-k` is `k` frames old and no frame
    numbers are stored.

    Attributes:
        prompt_map: Mask memory of the prompted frame, bf16 `(channels, h, w)`.
        prompt_pointer: Object pointer of the prompted frame, `(hidden,)`.
        age: Frames since the prompt, 0 right after it.
        maps: Mask memories of later frames, oldest first, at most `MemoryLimits.maps`.
        pointers: Object pointers of later frames, oldest first, at most `MemoryLimits.pointers`.
    """

    prompt_map: Tensor
    prompt_pointer: Tensor
    age: int = 0
    maps: tuple[Tensor, ...] = ()
    pointers: tuple[Tensor, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Objects of equal shape can attend to their memories in one batch."""
        return len(self.maps), len(self.pointers)

    @property
    def nbytes(self) -> int:
        """Size of the remembered tensors in bytes."""
        kept = (self.prompt_map, self.prompt_pointer, *self.maps, *self.pointers)
        return sum(tensor.numel() * tensor.element_size() for tensor in kept)

    def after(self, new_map: Tensor, pointer: Tensor, limits: MemoryLimits) -> "ObjectMemory":
        """Return the memory one frame later, without what no longer fits the limits."""
        return ObjectMemory(
            self.prompt_map,
            self.prompt_pointer,
            self.age + 1,
            (*self.maps, new_map)[-limits.maps :],
            (*self.pointers, pointer)[-limits.pointers :],
        )


@dataclass(frozen=True, slots=True)
class MemoryTokens:
    """Input of memory attention for `n` objects: tokens and positions `(length, n, channels)`.

    The last `pointer_tokens` of the tokens come from object pointers.
    """

    tokens: Tensor
    positions: Tensor
    pointer_tokens: int


class MemoryReader:
    """Turns memories of equal shape into the tokens that memory attention reads.

    Source: sam2 1.1.0, `SAM2Base._prepare_memory_conditioned_features`, with a batch of objects
    that differ in age where upstream takes one object at a time.
    """

    def __init__(self, network: SAM2Base) -> None:
        self._network = network
        self.limits = MemoryLimits(network.num_maskmem - 1, network.max_obj_ptrs_in_encoder - 1)
        grid = network.sam_image_embedding_size
        blank = torch.zeros(1, network.mem_dim, grid, grid, device=network.device)
        encoding = network.memory_encoder.position_encoding(blank)
        self._map_positions = encoding.flatten(2).permute(2, 0, 1)

    def read(self, memories: Sequence[ObjectMemory]) -> MemoryTokens:
        """Return the tokens of one or more memories, which must be of equal shape."""
        maps, map_positions = self._maps(memories)
        pointers, pointer_positions = self._pointers(memories)
        return MemoryTokens(
            torch.cat([maps, pointers]),
            torch.cat([map_positions, pointer_positions]),
            len(pointers),
        )

    def _maps(self, memories: Sequence[ObjectMemory]) -> tuple[Tensor, Tensor]:
        stacked = torch.stack([torch.stack((m.prompt_map, *m.maps)) for m in memories]).float()
        tokens = stacked.flatten(3).permute(1, 3, 0, 2).flatten(0, 1)
        count = len(memories[0].maps)
        # Row k - 1 of the table stands for k frames ago, its last row for the prompt.
        ages = [self._network.num_maskmem - 1, *range(count - 1, -1, -1)]
        temporal = self._network.maskmem_tpos_enc[ages, 0]
        positions = (self._map_positions[None] + temporal[:, None]).flatten(0, 1)
        return tokens, positions.expand(-1, len(memories), -1)

    def _pointers(self, memories: Sequence[ObjectMemory]) -> tuple[Tensor, Tensor]:
        network = self._network
        newest_first = [torch.stack((m.prompt_pointer, *m.pointers[::-1])) for m in memories]
        recent = range(1, len(memories[0].pointers) + 1)
        ages = torch.tensor([[m.age + 1, *recent] for m in memories], device=network.device)
        encoded = get_1d_sine_pe(ages.T / self.limits.pointers, dim=network.hidden_dim)
        positions = network.obj_ptr_tpos_proj(encoded)
        # A pointer is wider than a memory token: split it.
        parts = network.hidden_dim // network.mem_dim
        pointers = torch.stack(newest_first, dim=1)
        split = pointers.reshape(*pointers.shape[:2], parts, network.mem_dim)
        tokens = split.transpose(1, 2).flatten(0, 1)
        return tokens, positions.repeat_interleave(parts, dim=0)
