"""The flash kernel that torch's CPU build carries, called where it also returns the log-sum-exp.

The operator is private to torch: `available` tries it once against the naive twin, so that a torch that changes
it costs speed and not correctness.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from farspan.attention.dense import naive


def attend_piece(
    query: Tensor, keys: Tensor, values: Tensor, scaling: float, visible: Tensor | None, *, causal: bool = False
) -> tuple[Tensor, Tensor]:
    """As `naive.attend_piece`, out in the query's dtype; `causal` (T == N) stands for a lower-triangular `visible`.

    Keys are never repeated for grouped queries: unmasked, the G·T queries of a head are rows of one matrix;
    masked, heads are the batch and the group is a stride of zero.
    """
    H, G, T, D = query.shape
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
    if visible is None and (not causal or T == 1):
        rows = query.reshape(1, H, G * T, D)
        out, lse = flash(rows, keys[None], values[None], 0.0, False, scale=scaling)
        # the log-sum-exp comes back as [1, H, rows], its last two dimensions stored in either order
        return out.view(H, G, T, -1), lse.reshape(H, G, T)
    bias = None
    if visible is not None:
        bias = torch.zeros(visible.shape, dtype=query.dtype, device=query.device).masked_fill_(~visible, -math.inf)
        bias = bias[None, None] if bias.ndim == 2 else bias[:, None]
    wide_keys, wide_values = (x[:, None].expand(H, G, *x.shape[1:]) for x in (keys, values))
    out, lse = flash(query, wide_keys, wide_values, 0.0, causal, attn_mask=bias, scale=scaling)
    return _unseen(out, lse, visible)


def stacked_bias(visible: Tensor, group: int, dtype: torch.dtype) -> Tensor:
    """visible [T, N] bool -> [1, 1, G·T, N], 0 or -inf in `dtype`: for the queries of a group, one after the other."""
    bias = torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, -math.inf)
    return bias.repeat(group, 1)[None, None]


def attend_stacked(
    query: Tensor, keys: Tensor, values: Tensor, scaling: float, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """query [H, G, T, D] -> out [H, G, T, Dv] in its dtype, lse [H, G, T] float32. A group's queries are rows of one
    matrix, so that its keys are laid out for the kernel once; no row of `bias` may be -inf throughout.
    """
    H, G, T, D = query.shape
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
    rows = query.reshape(1, H, G * T, D)
    out, lse = flash(rows, keys[None], values[None], 0.0, False, attn_mask=bias, scale=scaling)
    return out.view(H, G, T, -1), lse.reshape(H, G, T)


def _unseen(out: Tensor, lse: Tensor, visible: Tensor | None) -> tuple[Tensor, Tensor]:
    """Queries that see nothing come back from flash as NaN or as a mean; say zeros and -inf instead."""
    if visible is None:
        return out, lse
    blind = ~visible.any(-1)
    blind = blind[None, None] if blind.ndim == 1 else blind[:, None]
    return out.masked_fill(blind[..., None], 0.0), lse.masked_fill(blind, -math.inf)


@functools.cache
def available() -> str | None:
    """None if this torch's kernel does what we need, else the reason."""
    if not hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu"):
        return "this torch has no CPU flash attention"
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 2, 5, 16, generator=generator)
    k, v = torch.randn(2, 2, 5, 16, generator=generator).unbind(0)
    lower = torch.ones(5, 5, dtype=torch.bool).tril()
    try:
        pairs = [
            (attend_piece(q, k, v, 0.3, None), naive.attend_piece(q, k, v, 0.3, None)),
            (attend_piece(q, k, v, 0.3, None, causal=True), naive.attend_piece(q, k, v, 0.3, lower)),
            (attend_piece(q, k, v, 0.3, lower), naive.attend_piece(q, k, v, 0.3, lower)),
        ]
    except (RuntimeError, TypeError) as error:
        return f"this torch's CPU flash attention refused the call ({error})"
    agree = all(torch.allclose(a, b, atol=1e-4) for mine, truth in pairs for a, b in zip(mine, truth, strict=True))
    return None if agree else "this torch's CPU flash attention disagrees with the naive twin"
