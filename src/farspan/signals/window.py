"""The attention that the last queries pay to what is held."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from farspan.attention.scaling import scored, with_sinks
from farspan.signals.observation import Observation

BLOCK = 4096  # entries at a time: a read's peak is its entries, not the scores of its window
QUERIES = 64  # and as many queries: a window may be as long as a chunk


def window_attention(observation: Observation, window: int) -> Tensor:
    """-> [H, N] float32: attention mass of the last `window` queries on each entry, summed over queries and
    averaged over the query heads of a group; each query's masses sum to 1 over the entries it sees.

    Source: SnapKV (Li et al. 2024), section 3. Blockwise: no more than [Hq, QUERIES, BLOCK] at a time.
    """
    return observation.once(("window_attention", window), lambda: _window_attention(observation, window))


def chunk_attention(observation: Observation) -> Tensor:
    """-> [H, N] float32: window attention of all the queries there are; of a whole chunk, where a scorer accumulates.

    A second QKᵀ beside the attention itself; beyond BLOCK entries a third, for the shares of all but the last block.
    """
    return window_attention(observation, observation.queries.shape[1])


def _window_attention(o: Observation, window: int) -> Tensor:
    mass = torch.zeros(o.heads, o.entries, device=o.keys.device)
    total = o.queries.shape[1]
    for start in range(total - min(window, total), total, QUERIES):
        _add_attention(o, slice(start, min(start + QUERIES, total)), mass)
    return mass


def _add_attention(o: Observation, asked: slice, mass: Tensor) -> None:
    """Add to `mass` [H, N] what the queries `asked` pay to each entry."""
    in_sight = (o.positions <= o.query_positions[asked].max()).any(0)  # [N]: what comes later for all is not looked at
    stop = int(in_sight.nonzero()[-1]) + 1  # every query sees itself
    *earlier, last = [slice(start, min(start + BLOCK, stop)) for start in range(0, stop, BLOCK)]
    lse = torch.full((), -math.inf, device=mass.device)
    for span in earlier:
        lse = torch.logaddexp(lse, _scores(o, asked, span).logsumexp(-1))
    weights = _scores(o, asked, last)  # [H, G, W, n], of which exp(score - top) is kept: computed once
    top = weights.amax(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).min)
    lse = torch.logaddexp(lse, weights.sub_(top).exp_().sum(-1).log() + top[..., 0])
    lse = with_sinks(lse.flatten(0, 1), o.scaling).view_as(lse)[..., None]
    for span in earlier:
        mass[:, span] += _scores(o, asked, span).sub_(lse).exp_().sum(2).mean(1)
    shares = (top - lse).exp().flatten(1, 2).mT  # [H, 1, G W]
    mass[:, last] += (shares @ weights.flatten(1, 2))[:, 0] / weights.shape[1]


def _scores(o: Observation, asked: slice, span: slice) -> Tensor:
    """-> [H, G, W, n]: what the queries `asked` say to the entries of `span`, -inf where these come later."""
    queries = o.queries[:, asked].float().unflatten(0, (o.heads, -1))  # [H, G, W, D]
    scores = scored(torch.einsum("hgwd,hnd->hgwn", queries, o.keys[:, span].float()), o.scaling)
    positions, at = o.positions[:, None, span], o.query_positions[asked, None]
    some_later = (positions > at.min()).any(0).any(0).nonzero()
    if len(some_later):  # the first entry that comes later for any; those before it need no mask
        first = int(some_later[0])
        scores[..., first:].masked_fill_((positions[..., first:] > at)[:, None], -math.inf)
    return scores
