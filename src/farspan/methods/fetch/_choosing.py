"""What fetch methods share: the best of several extents, and entries by their positions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from farspan.attention.scaling import scored
from farspan.methods.fetch.base import Asked, Candidates, Selection


def dots(queries: Tensor, keys: Tensor) -> Tensor:
    """queries [h, G, t, D] and keys [h, N, D] -> [h, G, t, N] float32; products are taken in the keys' dtype."""
    rows = queries.to(keys.dtype).flatten(1, 2)
    return (rows @ keys.transpose(1, 2)).float().unflatten(1, queries.shape[1:3])


def attention_mass(asked: Asked, held: Sequence[Candidates], queries: slice = slice(None)) -> list[Tensor]:
    """-> for each extent [h, N] float32: the share of full attention that each candidate gets from these queries, over
    which it is summed, and over the query heads of a group; -inf for what is no candidate.
    """
    grouped = asked.queries[:, :, queries]
    scores = [each.only(scored(dots(grouped, each.keys), asked.scaling)) for each in held]
    candidates = torch.stack([its.logsumexp(-1) for its in scores]).logsumexp(0)
    total = torch.logaddexp(candidates, asked.anyway()[:, :, queries])[..., None]
    return [each.only((its - total).exp_().sum((1, 2))) for each, its in zip(held, scores, strict=True)]


def top(scores: Sequence[Tensor], k: int) -> list[Selection]:
    """scores [h, N_e] of each extent, -inf for what may not be chosen -> the k highest of each head, of all extents."""
    edges = list(accumulate((each.shape[1] for each in scores), initial=0))
    every = scores[0] if len(scores) == 1 else torch.cat(list(scores), 1)
    best = every.topk(min(k, edges[-1]), dim=1, sorted=False)
    if bool((best.values > -torch.inf).all()):
        return split(list(best.indices.sort(dim=1).values), edges)
    chosen = [index[value > -torch.inf] for value, index in zip(best.values, best.indices, strict=True)]
    return split([index.sort().values for index in chosen], edges)


def split(chosen: Sequence[Tensor], edges: Sequence[int]) -> list[Selection]:
    """Ascending indices [n] of each head into all extents laid end to end -> a selection for each extent."""
    cuts = [torch.searchsorted(index, torch.tensor(edges, device=index.device)).tolist() for index in chosen]
    return [
        Selection(tuple(index[cut[e] : cut[e + 1]] - edges[e] for index, cut in zip(chosen, cuts, strict=True)))
        for e in range(len(edges) - 1)
    ]


def chosen_positions(selections: Sequence[Selection], held: Sequence[Candidates]) -> list[Tensor]:
    """-> [n] int32 per head, ascending: where the selected entries stand, extents oldest first."""
    heads = range(held[0].positions.shape[0])
    parts = [[e.positions[h][s.slots[h]] for e, s in zip(held, selections, strict=True) if s.slots] for h in heads]
    return [torch.cat(its) for its in parts]


def at_positions(wanted: Sequence[Tensor], held: Sequence[Candidates]) -> list[Selection]:
    """Those of the wanted positions [n] of each head that are candidates now -> a selection for each extent."""
    return [Selection(tuple(_slots(its, each, h) for h, its in enumerate(wanted))) for each in held]


def _slots(wanted: Tensor, held: Candidates, head: int) -> Tensor:
    positions = held.positions[head, held.first[head] : held.stop[head]].contiguous()
    if not positions.numel():
        return wanted.new_empty(0, dtype=torch.int64)
    at = torch.searchsorted(positions, wanted).clamp_max(positions.numel() - 1)
    return at[positions[at] == wanted].sort().values + held.first[head]


def same_tokens(held: Candidates) -> bool:
    """Whether all heads have the same candidates, so that they can choose together."""
    ranges = len(set(held.first)) == len(set(held.stop)) == 1
    return ranges and (held.positions.stride(0) == 0 or bool((held.positions == held.positions[:1]).all()))
