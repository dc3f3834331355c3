"""One step of many SAM2 objects at once: each looks at one picture of a batch."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from sam2_streaming.memory import MemoryReader, ObjectMemory

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_BOX_CORNERS = (2, 3)
"""Point labels with which a box is prompted. Source: sam2 1.1.0, `PromptEncoder`."""

Resolve = Callable[[Tensor], Tensor]
"""Corrects mask logits `(n, size, size)` of all targets before they are remembered."""


@dataclass(frozen=True, slots=True)
class Target:
    """One object to look for.

    Attributes:
        image: Index of the picture to look at.
        memory: Memory after the object's previous frame; unused if there is a box.
        box: Prompt that starts the object or restarts its memory: xyxy in pixels of the picture,
            float32 `(4,)`. None to follow the memory.
    """

    image: int
    memory: ObjectMemory | None = None
    box: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.memory is None and self.box is None:
            raise ValueError("target: expected a memory to follow or a box to start from")


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


@dataclass(frozen=True, slots=True)
class _Features:
    """Image features by level, `(h * w, images, channels)`, with positions and `(h, w)`."""

    vision: list[Tensor]
    positions: list[Tensor]
    sizes: list[tuple[int, int]]

    def of(self, images: Tensor) -> "_Features":
        """The features as seen by objects that look at `images`, int64 `(n,)`."""
        vision = [level[:, images] for level in self.vision]
        return _Features(vision, [level[:, images] for level in self.positions], self.sizes)

    def as_maps(self) -> list[Tensor]:
        """Vision features as `(images, channels, h, w)`."""
        return [_as_maps(v, size) for v, size in zip(self.vision, self.sizes, strict=True)]


@dataclass(frozen=True, slots=True)
class _Decoded:
    """Decoder outputs of `n` targets before anything is remembered."""

    logits: Tensor
    iou: Tensor
    presence: Tensor
    pointers: Tensor


class StreamingEngine:
    """A SAM2 network that follows any number of independent objects without holding any state.

    A step returns new memories and leaves the given ones as they are, so a step that fails changes
    nothing. Objects may start on any step. Equals `SAM2VideoPredictor` of sam2 1.1.0, which runs
    one object after the other and needs the whole video.

    Args:
        network: From `architecture`; the engine takes it over and may change its types.
        device: Where to run, such as `cpu` or `cuda:0`.
        dtype: `torch.float32`, or `torch.bfloat16` for matrix products in bf16.
    """

    def __init__(self, network: SAM2Base, device: str, dtype: torch.dtype) -> None:
        self.device = torch.device(device)
        self.image_size = int(network.image_size)
        self._network = _with_matrix_dtype(network.to(self.device).eval(), dtype)
        self._reader = MemoryReader(self._network)
        self._dtype = dtype
        self._mean = torch.tensor(_MEAN, device=self.device).view(3, 1, 1)
        self._std = torch.tensor(_STD, device=self.device).view(3, 1, 1)

    @torch.inference_mode()
    def step(
        self, images: NDArray[np.uint8], targets: Sequence[Target], resolve: Resolve
    ) -> Estimates:
        """Look for one or more targets.

        Args:
            images: RGB pictures `(m, size, size, 3)`.
            targets: Objects, each looking at one of the pictures.
            resolve: Applied between decoding and remembering.
        """
        with torch.autocast(self.device.type, self._dtype, self._dtype != torch.float32):
            features = self._encode(images)
            decoded = self._decode(features, targets)
            logits = resolve(decoded.logits)
            memories = self._remember(features, targets, decoded, logits)
        return Estimates(logits, decoded.presence.sigmoid() * decoded.iou.clamp(0, 1), memories)

    def _encode(self, images: NDArray[np.uint8]) -> _Features:
        pixels = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)
        encoded = self._network.forward_image((pixels / 255 - self._mean) / self._std)
        _, vision, positions, sizes = self._network._prepare_backbone_features(encoded)
        return _Features(vision, positions, sizes)

    def _decode(self, features: _Features, targets: Sequence[Target]) -> _Decoded:
        groups = _batches(targets)
        parts = [
            self._decode_batch(
                features.of(self._images(targets, group)), [targets[k] for k in group]
            )
            for group in groups
        ]
        order = torch.tensor([k for group in groups for k in group]).argsort().to(self.device)
        return _Decoded(
            torch.cat([part.logits for part in parts])[order],
            torch.cat([part.iou for part in parts])[order],
            torch.cat([part.presence for part in parts])[order],
            torch.cat([part.pointers for part in parts])[order],
        )

    def _decode_batch(self, features: _Features, targets: list[Target]) -> _Decoded:
        network = self._network
        points = self._points(targets)
        conditioned = self._without_memory(features) if points else self._attend(features, targets)
        *fine_maps, _ = features.as_maps()
        _, _, iou, _, logits, pointers, presence = network._forward_sam_heads(
            backbone_features=conditioned,
            point_inputs=points,
            high_res_features=fine_maps,
            multimask_output=network._use_multimask(points is not None, points),
        )
        best = iou.float().amax(1)
        return _Decoded(logits[:, 0].float(), best, presence[:, 0].float(), pointers.float())

    def _points(self, targets: list[Target]) -> dict[str, Tensor] | None:
        boxes = [target.box for target in targets if target.box is not None]
        if not boxes:
            return None
        corners = torch.from_numpy(np.stack(boxes).astype(np.float32)).view(-1, 2, 2)
        labels = torch.tensor([_BOX_CORNERS] * len(boxes), dtype=torch.int32)
        return {
            "point_coords": corners.to(self.device),
            "point_labels": labels.to(self.device),
        }

    def _without_memory(self, features: _Features) -> Tensor:
        return _as_maps(features.vision[-1] + self._network.no_mem_embed, features.sizes[-1])

    def _attend(self, features: _Features, targets: list[Target]) -> Tensor:
        memory = self._reader.read([t.memory for t in targets if t.memory is not None])
        attended = self._network.memory_attention(
            curr=features.vision[-1:],
            curr_pos=features.positions[-1:],
            memory=memory.tokens,
            memory_pos=memory.positions,
            num_obj_ptr_tokens=memory.pointer_tokens,
        )
        return _as_maps(attended, features.sizes[-1])

    def _remember(
        self, features: _Features, targets: Sequence[Target], decoded: _Decoded, logits: Tensor
    ) -> list[ObjectMemory]:
        memories: dict[int, ObjectMemory] = {}
        for prompted in (True, False):
            group = [k for k, target in enumerate(targets) if (target.box is not None) == prompted]
            if not group:
                continue
            maps, _ = self._network._encode_new_memory(
                features.of(self._images(targets, group)).vision,
                features.sizes,
                logits[group, None],
                decoded.presence[group, None],
                is_mask_from_pts=prompted,
            )
            # bf16 as upstream stores it. Source: sam2 1.1.0, `_run_single_frame_inference`.
            for k, new_map in zip(group, maps.to(torch.bfloat16), strict=True):
                memories[k] = self._next_memory(targets[k], new_map, decoded.pointers[k])
        return [memories[k] for k in range(len(targets))]

    def _next_memory(self, target: Target, new_map: Tensor, pointer: Tensor) -> ObjectMemory:
        if target.box is None and target.memory is not None:
            return target.memory.after(new_map, pointer, self._reader.limits)
        # A prompt lives long: copies, or it would keep the whole batch in memory.
        return ObjectMemory(new_map.clone(), pointer.clone())

    def _images(self, targets: Sequence[Target], group: list[int]) -> Tensor:
        return torch.tensor([targets[k].image for k in group], device=self.device)


def _with_matrix_dtype(network: SAM2Base, dtype: torch.dtype) -> SAM2Base:
    """Store the weights that autocast would convert on every step in its type once."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            module.to(dtype)
    return network


def _batches(targets: Sequence[Target]) -> list[list[int]]:
    """Indices of targets that can be decoded together: prompted ones, and equal memories."""
    batches: dict[tuple[int, int] | None, list[int]] = defaultdict(list)
    for k, target in enumerate(targets):
        follows = target.memory if target.box is None else None
        batches[follows.shape if follows else None].append(k)
    return list(batches.values())


def _as_maps(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """`(h * w, n, channels)` to `(n, channels, h, w)`."""
    return tokens.permute(1, 2, 0).reshape(tokens.shape[1], tokens.shape[2], *size)
