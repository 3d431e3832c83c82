"""Causal attention whose gradient is made of few large products: faster than torch's own at short lengths, on CPUs.

Queries go through the backward pass in blocks, each with the keys up to its end, and
query heads that share a key head go together, so that keys need not be repeated. The forward pass is torch's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BLOCK = 128
"""Queries of a block: large enough for the products, small enough that little is computed beyond the diagonal."""
SHORT = 512
"""Tokens up to which these gradients are the faster ones."""


class CausalAttention(torch.autograd.Function):
    """`[B, H, T, D]` queries, `[B, Hk, T, D]` keys and values -> `[B, H, T, D]`."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        group = queries.shape[1] // keys.shape[1]
        out, log_sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            queries, keys.repeat_interleave(group, 1), values.repeat_interleave(group, 1), is_causal=True
        )
        ctx.save_for_backward(queries, keys, values, out, log_sums)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        queries, keys, values, out, log_sums = ctx.saved_tensors
        return gradients(queries, keys, values, out, log_sums, grads[0])


def gradients(
    queries: Tensor, keys: Tensor, values: Tensor, out: Tensor, log_sums: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of queries, keys and values; `log_sums` `[B, T, H]` or `[B, H, T]` are the rows' log-sum-exps."""
    batch, heads, tokens, width = queries.shape
    shared = keys.shape[1]
    size = min(BLOCK, tokens)
    blocks, group = tokens // size, heads // shared

    def grouped(x: Tensor) -> Tensor:
        """`[B, H, T, ...]` -> `[blocks, B * Hk, group * size, ...]`."""
        split = x.reshape(batch, shared, group, blocks, size, *x.shape[3:]).movedim(3, 0)
        return split.reshape(blocks, batch * shared, group * size, *x.shape[3:])

    flat_keys, flat_values = (x.reshape(batch * shared, tokens, width) for x in (keys, values))
    own, own_grad = grouped(queries * width**-0.5), grouped(grad)
    own_sums, deltas = grouped(log_sums), grouped((grad.float() * out.float()).sum(-1))
    key_grads = torch.zeros(batch * shared, tokens, width)
    value_grads = torch.zeros_like(key_grads)
    query_grads = []
    later = torch.ones(size, size, dtype=torch.bool).triu(1).repeat(group, 1)
    for block in range(blocks):
        end = (block + 1) * size
        past_keys, past_values = flat_keys[:, :end], flat_values[:, :end]
        scores = own[block] @ past_keys.transpose(1, 2)
        scores[:, :, end - size :].masked_fill_(later, -torch.inf)
        weights, score_grads = _softmax_gradient(
            scores, own_sums[block], own_grad[block] @ past_values.transpose(1, 2), deltas[block]
        )
        value_grads[:, :end] += weights.transpose(1, 2) @ own_grad[block]
        key_grads[:, :end] += score_grads.transpose(1, 2) @ own[block]
        query_grads.append(score_grads @ past_keys)
    together = torch.stack(query_grads, 1).reshape(batch, shared, blocks, group, size, width).movedim(3, 2)
    query_grad = together.reshape(queries.shape) * width**-0.5
    return query_grad, key_grads.view(keys.shape).to(keys.dtype), value_grads.view(values.shape).to(values.dtype)


def _softmax_gradient(scores: Tensor, log_sums: Tensor, weight_grads: Tensor, deltas: Tensor) -> tuple[Tensor, Tensor]:
    """Attention weights, and the gradient of the scores, in the scores' own precision."""
    weights = torch.exp(scores.float() - log_sums[..., None])
    return weights.to(scores.dtype), (weights * (weight_grads.float() - deltas[..., None])).to(scores.dtype)
