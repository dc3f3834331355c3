"""Memory attention over a batch of objects whose memories differ in length."""

import math

import torch
from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
from sam2.modeling.sam.transformer import RoPEAttention
from torch import Tensor
from torch.nn import functional

from sam2_streaming.memory import MemoryTokens


class BatchedMemoryAttention:
    """The weights of a memory attention, applied to objects that need not be of equal age.

    Upstream's own `forward` has no room for a mask over the memory.

    Source: sam2 1.1.0, `MemoryAttention`, with the switches of every published configuration:
    positions are added to the input and to the keys of the cross attention.

    Args:
        attention: Its layers are shared, not copied.
    """

    def __init__(self, attention: MemoryAttention) -> None:
        self._layers = attention.layers
        self._norm = attention.norm

    def condition(self, tokens: Tensor, positions: Tensor, memory: MemoryTokens) -> Tensor:
        """Condition image features on memories.

        Args:
            tokens: Features of what each object looks at, `(n, h * w, channels)`, h equal to w.
            positions: `(1, h * w, channels)`.
            memory: Of the same objects.

        Returns:
            fp32 `(n, h * w, channels)`.
        """
        attended = tokens + 0.1 * positions
        for layer in self._layers:
            attended = _through(layer, attended, memory)
        conditioned: Tensor = self._norm(attended)
        return conditioned.float()


def _through(layer: MemoryAttentionLayer, x: Tensor, memory: MemoryTokens) -> Tensor:
    seen = layer.norm1(x)
    x = x + _attend(layer.self_attn, seen, seen, seen, 0, None)
    queries, values = layer.norm2(x), memory.tokens
    x = x + _attend(
        layer.cross_attn_image, queries, memory.keys, values, memory.pointer_tokens, memory.present
    )
    changed: Tensor = layer.linear2(layer.activation(layer.linear1(layer.norm3(x))))
    return x + changed


def _attend(
    attention: RoPEAttention,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    unplaced: int,
    present: Tensor | None,
) -> Tensor:
    """Attend with rotary positions; the last `unplaced` keys have no place in the picture.

    Source: sam2 1.1.0, `RoPEAttention.forward`.
    """
    q, k, v = (
        attention._separate_heads(project(x), attention.num_heads)
        for project, x in (
            (attention.q_proj, queries),
            (attention.k_proj, keys),
            (attention.v_proj, values),
        )
    )
    turns = _turns(attention, q.shape[-2], q.device)
    placed, others = k.split([k.shape[-2] - unplaced, unplaced], dim=-2)
    k = torch.cat([_rotated(placed, turns), others], dim=-2)
    mask = None if present is None else present[:, None, None]
    attended = functional.scaled_dot_product_attention(_rotated(q, turns), k, v, mask)
    result: Tensor = attention.out_proj(attention._recombine_heads(attended))
    return result


def _turns(attention: RoPEAttention, count: int, device: torch.device) -> Tensor:
    """Unit complex numbers by which positions turn pairs of channels, `(h * w, channels / 2)`."""
    if len(attention.freqs_cis) != count:
        side = math.isqrt(count)
        attention.freqs_cis = attention.compute_cis(end_x=side, end_y=side)
    attention.freqs_cis = attention.freqs_cis.to(device)
    turns: Tensor = attention.freqs_cis
    return turns


def _rotated(x: Tensor, turns: Tensor) -> Tensor:
    """Turn pairs of channels of `x`, `(n, heads, k * h * w, channels)` with any whole `k`."""
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:2], -1, *turns.shape, 2))
    return torch.view_as_real(pairs * turns).view(x.shape).type_as(x)
