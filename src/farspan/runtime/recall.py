"""How much of full attention a selection covers: what fetching is judged by, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from farspan.attention import partial_attention
from farspan.attention.fetched import Gather
from farspan.cache import LayerCache, entries_at


@dataclass
class _Sums:
    """Of one layer: mass [Hq] summed over queries, entries read and held per key-value head, and how many queries."""

    mass: Tensor
    read: float = 0.0
    held: float = 0.0
    queries: int = 0


@dataclass(frozen=True)
class LayerRecall:
    """What was covered of one layer's attention, over the tokens of a question and its answer."""

    layer: int
    mass: float
    """Share of full attention that fell on what was read, mean over query heads and tokens."""
    least: float
    """That of the query head with the lowest."""
    read: float
    """Entries read per key-value head and token, sinks, recent ones and the open tail included."""
    held: float
    """Entries that there were."""


@dataclass
class Recall:
    """Measures selections as they are made; costs a second reading of everything."""

    layers: dict[int, _Sums] = field(default_factory=dict)

    def note(self, layer: LayerCache, query: Tensor, begins: int, scaling: float, gathers: Sequence[Gather]) -> None:
        """The queries [Hq, t, D] of the tokens from position `begins` on read `gathers` and the tail."""
        heads, tokens = layer.tail.keys.shape[0], query.shape[1]
        sums = self.layers.setdefault(layer.index, _Sums(torch.zeros(query.shape[0], dtype=torch.float64)))
        sums.mass += covered(layer, query, begins, scaling, gathers).sum(1)
        in_tail = sum(begins - layer.tail.first + 1 + t for t in range(tokens)) * heads
        extents = sum(extent.offsets[-1] for extent in layer.extents) * tokens
        sums.held += (in_tail + extents) / heads
        sums.read += (in_tail + sum(_many(gather) for gather in gathers) * tokens) / heads
        sums.queries += tokens

    def found(self) -> tuple[LayerRecall, ...]:
        """One for each layer that fetched, in order."""
        return tuple(
            LayerRecall(
                layer,
                float(sums.mass.mean() / sums.queries),
                float(sums.mass.min() / sums.queries),
                sums.read / sums.queries,
                sums.held / sums.queries,
            )
            for layer, sums in sorted(self.layers.items())
        )


def covered(layer: LayerCache, query: Tensor, begins: int, scaling: float, gathers: Sequence[Gather]) -> Tensor:
    """query [Hq, t, D] -> [Hq, t] float64: the share of full attention that falls on what is read, unweighted."""
    grouped = query.unflatten(0, (layer.tail.keys.shape[0], -1))
    tail = tail_lse(layer, grouped, begins, scaling)
    read = torch.stack([tail, *(gather_lse(grouped, gather, scaling) for gather in gathers)]).logsumexp(0)
    every = [gather_lse(grouped, Gather(extent), scaling) for extent in layer.extents]
    full = torch.stack([tail, *every]).logsumexp(0)
    return (read - full).double().exp().flatten(0, 1)


def tail_lse(layer: LayerCache, grouped: Tensor, begins: int, scaling: float) -> Tensor:
    """grouped [H, G, t, D] of tokens from position `begins` on -> [H, G, t]: log-sum-exp over the tail up to each."""
    tail = layer.tail
    end = begins - tail.first + grouped.shape[2]
    at = torch.arange(end, device=grouped.device)
    seen = at <= at[end - grouped.shape[2] :, None]
    return partial_attention(grouped, tail.keys[:, :end], tail.values[:, :end], scaling, seen)[1]


def gather_lse(grouped: Tensor, gather: Gather, scaling: float) -> Tensor:
    """grouped [H, G, t, D] -> [H, G, t]: log-sum-exp over what is gathered, without its log-weights."""
    lse = torch.full(grouped.shape[:3], -torch.inf, device=grouped.device)
    if gather.slots is None:
        for piece in gather.extent.pieces():
            _, its = partial_attention(grouped[piece.heads], piece.keys, piece.values, scaling, None)
            lse[piece.heads] = torch.logaddexp(lse[piece.heads], its)
        return lse
    for head, (keys, values) in enumerate(entries_at(gather.extent, gather.slots)):
        lse[head] = partial_attention(grouped[head : head + 1], keys[None], values[None], scaling, None)[1][0]
    return lse


def _many(gather: Gather) -> int:
    """Entries, all heads together."""
    return gather.extent.offsets[-1] if gather.slots is None else sum(its.numel() for its in gather.slots)
