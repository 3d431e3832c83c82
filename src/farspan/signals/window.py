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

    A second and a third QKᵀ beside the attention itself: one for what each query's scores sum to, one for the shares.
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
    spans = [slice(start, start + BLOCK) for start in range(0, o.entries, BLOCK)]
    lse = _scores(o, asked, spans[0]).logsumexp(-1)
    for span in spans[1:]:
        lse = torch.logaddexp(lse, _scores(o, asked, span).logsumexp(-1))
    lse = with_sinks(lse.flatten(0, 1), o.scaling).view_as(lse)
    for span in spans:
        mass[:, span] += _scores(o, asked, span).sub_(lse[..., None]).exp_().sum(2).mean(1)


def _scores(o: Observation, asked: slice, span: slice) -> Tensor:
    """-> [H, G, W, n]: what the queries `asked` say to the entries of `span`, -inf where these come later."""
    queries = o.queries[:, asked].float().unflatten(0, (o.heads, -1))  # [H, G, W, D]
    scores = scored(torch.einsum("hgwd,hnd->hgwn", queries, o.keys[:, span].float()), o.scaling)
    later = o.positions[:, None, span] > o.query_positions[asked, None]  # [H, W, n]
    return scores.masked_fill_(later[:, None], -math.inf)
