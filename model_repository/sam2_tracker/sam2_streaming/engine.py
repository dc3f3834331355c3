"""One step of many SAM2 objects at once: each looks at one picture of a batch."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from sam2_streaming.attention import BatchedMemoryAttention
from sam2_streaming.batches import filled, grouped
from sam2_streaming.decoder import Decoded, Decoder, Sight
from sam2_streaming.encoder import Features, Images, PictureEncoder
from sam2_streaming.memory import MemoryLimits, MemoryReader, ObjectMemory
from sam2_streaming.prompts import Prompt

_TOKENS_IN_BATCH, _TOKENS_IN_CPU_BATCH = 1 << 18, 1 << 12
"""Most tokens of the coarse feature maps of a batch: 64 objects in 1024 px pictures; on a CPU what
its caches bear."""

Resolve = Callable[[Tensor], Tensor]
"""Corrects mask logits `(n, size, size)` of all targets before they are remembered."""


@dataclass(frozen=True, slots=True)
class Target:
    """One object to look for.

    Attributes:
        image: Index of the picture to look at.
        memory: Memory after the object's previous frame; None starts the object from its prompt.
        prompt: Shows the object. With a memory it corrects what the memory alone would find, as
            clicks on a tracked frame do in `SAM2VideoPredictor`. None to follow the memory.
    """

    image: int
    memory: ObjectMemory | None = None
    prompt: Prompt | None = None

    def __post_init__(self) -> None:
        if self.memory is None and self.prompt is None:
            raise ValueError("target: expected a memory to follow or a prompt to start from")

    @property
    def is_traced(self) -> bool:
        """Whether the prompt says the mask itself, so that nothing has to be looked for."""
        return self.prompt is not None and self.prompt.mask is not None


@dataclass(frozen=True, slots=True)
class Estimates:
    """What is believed about `n` targets, in their order.

    Attributes:
        logits: Mask logits fp32 `(n, size, size)`, above 0 inside; all negative if out of sight.
        scores: fp32 `(n,)` in `[0, 1]`: probability that the object is in sight times predicted
            IoU of its mask.
        memories: For the next step of each target.
    """

    logits: Tensor
    scores: Tensor
    memories: list[ObjectMemory]


class StreamingEngine:
    """A SAM2 network that follows any number of independent objects without holding any state.

    A step returns new memories and leaves the given ones as they are, so a step that fails changes
    nothing. Objects may start, or be corrected, on any step. Equals `SAM2VideoPredictor` of sam2
    1.1.0, which runs one object after the other and needs the whole video.

    Args:
        network: From `architecture`; the engine takes it over and may change its types.
        device: Where to run, such as `cpu` or `cuda:0`.
        dtype: `torch.float32`, or `torch.bfloat16` for matrix products in bf16.
        min_memory_score: A followed frame is remembered only from this quality on: its score times
            the share of its mask that `resolve` left standing. Otherwise the memory stays as it
            was and its clock stands still. 0 remembers every frame, as upstream does.
        pads: Whether memories are padded to full length and batches to one of a few sizes, so that
            the network sees few shapes. None: where that pays, on a GPU.
    """

    def __init__(
        self,
        network: SAM2Base,
        device: str,
        dtype: torch.dtype,
        min_memory_score: float = 0.0,
        pads: bool | None = None,
    ) -> None:
        self.device = torch.device(device)
        self._pads = self.device.type == "cuda" if pads is None else pads
        self.image_size = int(network.image_size)
        self._network = _with_matrix_dtype(network.to(self.device).eval(), dtype)
        self._encoder = PictureEncoder(self._network)
        self._reader = MemoryReader(self._network)
        self._attention = BatchedMemoryAttention(self._network.memory_attention)
        self._decoder = Decoder(self._network)
        self._dtype = dtype
        self._min_memory_score = min_memory_score
        tokens = network.sam_image_embedding_size**2
        bearable = _TOKENS_IN_CPU_BATCH if self.device.type == "cpu" else _TOKENS_IN_BATCH
        self._most = max(1, bearable // tokens)

    @torch.inference_mode()
    def step(self, images: Images, targets: Sequence[Target], resolve: Resolve) -> Estimates:
        """Look for one or more targets.

        Args:
            images: RGB pictures, an array or a tensor on the engine's device.
            targets: Objects, each looking at one of the pictures.
            resolve: Applied between decoding and remembering, in fp32 whatever `dtype` says.
        """
        with torch.autocast(self.device.type, self._dtype, self._dtype != torch.float32):
            features = self._encode(images)
            coarse = features.coarse[self._index(target.image for target in targets)]
            conditioned = self._condition(coarse, features.positions, targets)
            decoded = self._decode(features.fine, conditioned, targets)
            # Where masks are parted is a matter of pixels, which bf16 cannot tell apart.
            with torch.autocast(self.device.type, enabled=False):
                logits = resolve(decoded.logits)
            memories = self._remember(coarse, targets, decoded, logits)
        return Estimates(logits, decoded.scores, memories)

    def _encode(self, images: Images) -> Features:
        parts = [
            self._encoder.encode(images, self._batch(rows)).first(len(rows))
            for rows in grouped(dict.fromkeys(range(len(images))), self._most)
        ]
        return parts[0] if len(parts) == 1 else Features.of(parts)

    def _condition(self, coarse: Tensor, positions: Tensor, targets: Sequence[Target]) -> Tensor:
        """Change the coarse maps of the targets by what these remember."""
        conditioned = coarse.to(torch.float32, copy=True)
        starts = [k for k, t in enumerate(targets) if t.memory is None and not t.is_traced]
        conditioned[starts] += self._network.no_mem_embed.view(1, -1, 1, 1)
        followed = {k: t.memory for k, t in enumerate(targets) if t.memory and not t.is_traced}
        rooms = {k: self._room(memory) for k, memory in followed.items()}
        for rows in grouped(rooms, self._most):
            batch = self._batch(rows)
            memory = self._reader.read([followed[k] for k in batch], rooms[rows[0]])
            tokens = coarse[batch].flatten(2).transpose(1, 2)
            attended = self._attention.condition(tokens, positions, memory)[: len(rows)]
            conditioned[rows] = attended.transpose(1, 2).reshape(-1, *coarse.shape[1:])
        return conditioned

    def _decode(
        self, fine: list[Tensor], conditioned: Tensor, targets: Sequence[Target]
    ) -> Decoded:
        """Decode targets in groups of equal prompts; a correction builds on the followed mask."""

        def sight(batch: list[int]) -> Sight:
            images = self._index(targets[k].image for k in batch)
            return Sight(conditioned[batch], [level[images] for level in fine])

        decoded = self._decoder.blank(len(targets))
        followed = [k for k, t in enumerate(targets) if t.memory and not t.is_traced]
        for rows in grouped(dict.fromkeys(followed), self._most):
            decoded.write(rows, self._decoder.follow(sight(self._batch(rows))))
        prompts = {k: t.prompt for k, t in enumerate(targets) if t.prompt}
        kinds = {k: (targets[k].memory is None, p.kind) for k, p in prompts.items()}
        for rows in grouped(kinds, self._most):
            batch = self._batch(rows)
            given = [prompts[k] for k in batch]
            if targets[rows[0]].is_traced:
                part = self._decoder.trace(sight(batch), given)
            elif targets[rows[0]].memory is None:
                part = self._decoder.start(sight(batch), given)
            else:
                part = self._decoder.correct(sight(batch), given, decoded.small_logits[batch])
            decoded.write(rows, part)
        return decoded

    def _remember(
        self, coarse: Tensor, targets: Sequence[Target], decoded: Decoded, logits: Tensor
    ) -> list[ObjectMemory]:
        memories = {k: t.memory for k, t in enumerate(targets) if t.memory}
        memorable = self._memorable(targets, decoded, logits)
        masks = self._masks_to_remember(targets, logits)
        for rows in grouped(dict.fromkeys(memorable), self._most):
            batch = self._batch(rows)
            maps = self._encode_masks(coarse[batch], masks[batch], decoded.presence[batch])
            # Copies, or each memory would keep those of the whole batch.
            for k, new_map in zip(rows, maps, strict=False):
                pointer = decoded.pointers[k].clone()
                memories[k] = self._reader.extended(memories.get(k), new_map.clone(), pointer)
        return [memories[k] for k in range(len(targets))]

    def _memorable(self, targets: Sequence[Target], decoded: Decoded, logits: Tensor) -> list[int]:
        """Rows of the prompted targets, and of the followed ones that are seen well enough."""
        if self._min_memory_score <= 0:
            return list(range(len(targets)))
        left, found = ((of > 0).sum((1, 2)) for of in (logits, decoded.logits))
        quality = (decoded.scores * left / found.clamp(min=1)).tolist()
        return [
            k
            for k, target in enumerate(targets)
            if target.prompt or quality[k] >= self._min_memory_score
        ]

    def _masks_to_remember(self, targets: Sequence[Target], logits: Tensor) -> Tensor:
        """Mask logits as memory shall see them: those of prompted frames without doubt."""
        if not self._network.binarize_mask_from_pts_for_mem_enc:
            return logits
        prompted = [k for k, target in enumerate(targets) if target.prompt]
        masks = logits.clone()
        masks[prompted] = torch.where(logits[prompted] > 0, torch.inf, -torch.inf)
        return masks

    def _encode_masks(self, coarse: Tensor, masks: Tensor, presence: Tensor) -> Tensor:
        maps, _ = self._network._encode_new_memory(
            [_as_tokens(coarse)],
            [coarse.shape[-2:]],
            masks[:, None],
            presence[:, None],
            is_mask_from_pts=False,  # `_masks_to_remember` has seen to it, row by row
        )
        # As upstream stores it. Source: sam2 1.1.0, `_run_single_frame_inference`.
        stored: Tensor = maps.to(torch.bfloat16)
        return stored

    def _batch(self, rows: list[int]) -> list[int]:
        return filled(rows) if self._pads else rows

    def _room(self, memory: ObjectMemory) -> MemoryLimits:
        """What the memory is padded to."""
        return self._reader.limits if self._pads else memory.fill

    def _index(self, rows: Iterable[int]) -> Tensor:
        return torch.tensor(list(rows), device=self.device)


def _with_matrix_dtype(network: SAM2Base, dtype: torch.dtype) -> SAM2Base:
    """Store the weights that autocast would convert on every step in its type once."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            module.to(dtype)
    return network


def _as_tokens(maps: Tensor) -> Tensor:
    """`(n, channels, h, w)` to `(h * w, n, channels)`."""
    return maps.flatten(2).permute(2, 0, 1)
