"""Attention of a few probe queries, normalised by how many of them could look."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from farspan.attention.scaling import scored, with_sinks
from farspan.signals.observation import Observation

BLOCK = 4096  # entries at a time


def normalized_attention(observation: Observation) -> Tensor:
    """-> [H, N] float32: the mean attention that an entry gets from those queries which see it, averaged over the query
    heads of a group; 0 where none does.

    A sum favours old entries, which more rows of the triangle reach. Source: ZipCache (He et al. 2024), equation 8.
    """
    return observation.once("normalized_attention", lambda: _normalized_attention(observation))


def _normalized_attention(o: Observation) -> Tensor:
    queries = o.queries.float().unflatten(0, (o.heads, -1))  # [H, G, W, D]
    spans = [slice(start, start + BLOCK) for start in range(0, o.entries, BLOCK)]
    lse = o.lse.unflatten(0, (o.heads, -1)) if o.lse is not None else None
    if lse is None:
        lse = torch.stack([_scores(o, queries, span).logsumexp(-1) for span in spans]).logsumexp(0)
        lse = with_sinks(lse.flatten(0, 1), o.scaling).view_as(lse)
    out = torch.empty(o.heads, o.entries, device=o.keys.device)
    for span in spans:
        mass = (_scores(o, queries, span) - lse[..., None]).exp().sum(2).mean(1)  # [H, n]
        seen_by = (o.positions[:, None, span] <= o.query_positions[:, None]).sum(1)
        out[:, span] = mass / seen_by.clamp_min(1)
    return out


def _scores(o: Observation, queries: Tensor, span: slice) -> Tensor:
    """-> [H, G, W, n], -inf where an entry comes later than the query."""
    scores = scored(torch.einsum("hgwd,hnd->hgwn", queries, o.keys[:, span].float()), o.scaling)
    later = o.positions[:, None, span] > o.query_positions[:, None]
    return scores.masked_fill_(later[:, None], -math.inf)
