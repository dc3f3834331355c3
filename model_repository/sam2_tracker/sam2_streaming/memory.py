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
    def fill(self) -> MemoryLimits:
        """How much is remembered beside the prompt."""
        return MemoryLimits(len(self.maps), len(self.pointers))

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
            _latest((*self.maps, new_map), limits.maps),
            _latest((*self.pointers, pointer), limits.pointers),
        )


def _latest(ring: tuple[Tensor, ...], most: int) -> tuple[Tensor, ...]:
    return ring[max(len(ring) - most, 0) :]


@dataclass(frozen=True, slots=True)
class MemoryTokens:
    """Input of memory attention for `n` objects.

    Attributes:
        tokens: `(n, length, channels)`.
        keys: The same with their positions added.
        pointer_tokens: How many tokens at the end come from object pointers.
        present: bool `(n, length)`, False where a memory is shorter than the room it was given;
            None if none is, which spares attention the mask.
    """

    tokens: Tensor
    keys: Tensor
    pointer_tokens: int
    present: Tensor | None


class MemoryReader:
    """Turns memories into the tokens that memory attention reads.

    Source: sam2 1.1.0, `SAM2Base._prepare_memory_conditioned_features`, with a batch of objects
    that differ in age where upstream takes one object at a time.
    """

    def __init__(self, network: SAM2Base) -> None:
        self._network = network
        self.limits = MemoryLimits(network.num_maskmem - 1, network.max_obj_ptrs_in_encoder - 1)
        # A pointer is wider than a memory token and is split.
        self._parts = network.hidden_dim // network.mem_dim
        grid = network.sam_image_embedding_size
        self._no_map = torch.zeros(
            network.mem_dim, grid, grid, dtype=torch.bfloat16, device=network.device
        )
        self._no_pointer = torch.zeros(network.hidden_dim, device=network.device)
        encoding = network.memory_encoder.position_encoding(self._no_map[None].float())
        self._map_positions = encoding.flatten(2).transpose(1, 2)

    def extended(
        self, memory: ObjectMemory | None, new_map: Tensor, pointer: Tensor
    ) -> ObjectMemory:
        """Return the memory with one more frame; None begins one with its prompt."""
        if memory is None:
            return ObjectMemory(new_map, pointer)
        return memory.after(new_map, pointer, self.limits)

    def read(self, memories: Sequence[ObjectMemory], room: MemoryLimits) -> MemoryTokens:
        """Return the tokens of one or more memories, each padded to the same room."""
        maps, map_keys = self._maps(memories, room.maps)
        pointers, pointer_keys = self._pointers(memories, room.pointers)
        return MemoryTokens(
            torch.cat([maps, pointers], dim=1),
            torch.cat([map_keys, pointer_keys], dim=1),
            pointers.shape[1],
            self._present(memories, room),
        )

    def _maps(self, memories: Sequence[ObjectMemory], room: int) -> tuple[Tensor, Tensor]:
        """Tokens and keys of the prompts' maps, of padding, and of the latest maps."""
        rings = [(*[self._no_map] * (room - len(m.maps)), *m.maps) for m in memories]
        stacked = torch.stack(
            [torch.stack((m.prompt_map, *ring)) for m, ring in zip(memories, rings, strict=True)]
        ).float()
        tokens = stacked.flatten(3).transpose(2, 3).flatten(1, 2)
        # Row k - 1 of the table stands for k frames ago, its last row for the prompt.
        ages = [self._network.num_maskmem - 1, *range(room - 1, -1, -1)]
        temporal = self._network.maskmem_tpos_enc[ages, 0]
        return tokens, tokens + (self._map_positions + temporal).flatten(0, 1)

    def _pointers(self, memories: Sequence[ObjectMemory], room: int) -> tuple[Tensor, Tensor]:
        """Tokens and keys of the prompts' pointers, of the latest ones backwards, of padding."""
        network = self._network
        rings = [
            (*m.pointers[::-1], *[self._no_pointer] * (room - len(m.pointers))) for m in memories
        ]
        pointers = torch.stack(
            [
                torch.stack((m.prompt_pointer, *ring))
                for m, ring in zip(memories, rings, strict=True)
            ]
        )
        ages = torch.tensor([[m.age + 1, *range(1, room + 1)] for m in memories])
        encoded = get_1d_sine_pe(ages.to(network.device) / self.limits.pointers, network.hidden_dim)
        positions = network.obj_ptr_tpos_proj(encoded)
        tokens = pointers.reshape(len(memories), -1, network.mem_dim)
        return tokens, tokens + positions.repeat_interleave(self._parts, dim=1)

    def _present(self, memories: Sequence[ObjectMemory], room: MemoryLimits) -> Tensor | None:
        if all(memory.fill == room for memory in memories):
            return None
        slots = torch.tensor(
            [
                [True]
                + [k >= room.maps - len(m.maps) for k in range(room.maps)]
                + [True]
                + [k < len(m.pointers) for k in range(room.pointers)]
                for m in memories
            ]
        )
        lengths = [self._map_positions.shape[1]] * (1 + room.maps)
        lengths += [self._parts] * (1 + room.pointers)
        spread = torch.tensor(lengths).to(self._network.device)
        return slots.to(self._network.device).repeat_interleave(spread, dim=1)
