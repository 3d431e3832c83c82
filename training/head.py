"""Loss over the vocabulary, with its gradients at once: logits are made for a few hundred targets at a time and never
kept, which on CPUs costs a third of what logits, softmax and their gradients apart do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

CHUNK = 512
"""Targets that meet the vocabulary together."""

Piece = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]


def _piece(hidden: Tensor, words: Tensor, targets: Tensor, shares: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """-> sum of losses, which guesses are right, gradients of `hidden` and `words`."""
    logits = (hidden @ words.T).float()
    peaks = logits.amax(-1, keepdim=True)
    weights = torch.exp(logits - peaks)
    sums = weights.sum(-1, keepdim=True)
    is_target = torch.arange(words.shape[0], device=words.device) == targets[:, None]
    own = torch.where(is_target, logits, 0.0).sum(-1, keepdim=True)
    loss = ((peaks + sums.log() - own)[:, 0] * shares).sum()
    changes = ((weights / sums - is_target.float()) * shares[:, None]).to(hidden.dtype)
    right = logits.argmax(-1) == targets
    return loss, right, changes @ words, changes.T @ hidden


@functools.cache
def piece(compile: bool) -> Piece:
    return torch.compile(_piece, dynamic=False) if compile else _piece


class HeadLoss(torch.autograd.Function):
    """Hidden states `[N, hidden]` in bfloat16, the vocabulary's weights in float32, targets and the share `[N]` of each
    in the loss -> loss and which guesses are right.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, words: Tensor, targets: Tensor, shares: Tensor, compile: bool
    ) -> tuple[Tensor, Tensor]:
        count, rest = hidden.shape[0], -hidden.shape[0] % CHUNK
        states, goals, parts = pad(hidden, (0, 0, 0, rest)), pad(targets, (0, rest)), pad(shares, (0, rest))
        low = words.to(hidden.dtype)
        loss, word_grads = hidden.new_zeros((), dtype=torch.float32), torch.zeros_like(words)
        right, state_grads = [], []
        for start in range(0, states.shape[0], CHUNK):
            own = slice(start, start + CHUNK)
            more, hits, of_states, of_words = piece(compile)(states[own], low, goals[own], parts[own])
            loss = loss + more
            right.append(hits)
            state_grads.append(of_states)
            word_grads += of_words
        hits = torch.cat(right)[:count]
        ctx.save_for_backward(torch.cat(state_grads)[:count], word_grads)
        ctx.mark_non_differentiable(hits)
        return loss, hits

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        of_states, of_words = ctx.saved_tensors
        return of_states * grads[0].to(of_states.dtype), of_words * grads[0], None, None, None
