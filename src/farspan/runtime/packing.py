"""Sealing a layer: what a store packs and may look at, and what stays in the model's dtype because it is new."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from farspan.attention.lse import held_lse
from farspan.attention.scaling import of_heads
from farspan.cache import DenseBlock, Events, Extent, KeylessBlock, LayerCache
from farspan.cache.lowrank import Turn
from farspan.cache.sequence import Followed, Replaced
from farspan.cache.spill import Shelf
from farspan.methods.store.base import Place, Store
from farspan.plan import Plan
from farspan.signals import Observation, Rotations


class Asked(NamedTuple):
    """Queries [Hq, W, D] of one layer at positions [W], and what q·k is multiplied with."""

    queries: Tensor
    positions: Tensor
    scaling: float


@dataclass
class Packing:
    """How one sequence's entries are sealed: packed by which store, with which queries noted for it layer by layer,
    and put where.
    """

    store: Store | None
    place: Place | None = None
    rotations: Rotations | None = None
    asked: dict[int, Asked] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: Plan, rotations: Rotations | None) -> Packing | None:
        """From a plan, if it has a store or a place."""
        store, place = plan.get("store"), plan.get("place")
        if store is None and place is None:
            return None
        return cls(store if isinstance(store, Store) else None, place if isinstance(place, Place) else None, rotations)

    @cached_property
    def shelf(self) -> Shelf | None:
        """Opened when the first extent seals."""
        return None if self.place is None else self.place.open()

    def keeps_back(self) -> int:
        """How many of the newest entries of each head are not packed."""
        return 0 if self.store is None else self.store.keeps_back()

    def note(self, layer: int, query: Tensor, start: int, scaling: float) -> None:
        """Keep what the store wants of the queries [Hq, T, D] of tokens from position `start` on: the newest, and as
        many drawn from the others.
        """
        tokens = query.shape[1]
        wanted = 0 if self.store is None else min(self.store.asks(tokens), tokens)
        if not wanted:
            return
        newest = -(-wanted // 2)
        generator = torch.Generator().manual_seed(layer * 1_000_003 + start + tokens)
        drawn = torch.randperm(tokens - newest, generator=generator)[: wanted - newest].sort().values
        chosen = torch.cat([drawn, torch.arange(tokens - newest, tokens)]).to(query.device)
        self.asked[layer] = Asked(query[:, chosen], (chosen + start).to(torch.int32), scaling)

    def at(self, layer: LayerCache) -> Sealer:
        """What seals entries of one layer, now."""
        return Sealer(self, layer, self.asked.get(layer.index))


@dataclass
class Sealer:
    """The moment in which entries of one layer are packed and put away."""

    packing: Packing
    layer: LayerCache
    asked: Asked | None

    def seal(self, extent: Extent) -> Extent:
        """The same entries, packed and in their place."""
        store, shelf = self.packing.store, self.packing.shelf
        packed = extent if store is None else store.seal(extent, self)
        return packed if shelf is None else shelf.put(packed, self.layer.index)

    @property
    def turn(self) -> Turn | None:
        """See `methods.store.base.Witness`."""
        return turn_of(self.packing.rotations, self.layer.index)

    @property
    def leader(self) -> int | None:
        """See `methods.store.base.Witness`."""
        return None if self.layer.leader is None else self.layer.leader.index

    @cached_property
    def lse(self) -> Tensor:
        """[Hq, W] over all that the layer holds at the first look."""
        assert self.asked is not None
        return held_lse(self.layer, *self.asked)

    def observe(self, extent: Extent) -> list[Observation]:
        """See `methods.store.base.Witness`."""
        assert self.asked is not None, "queries are noted before anything seals"
        heads = extent.heads
        groups = [slice(0, heads)] if extent.uniform else [slice(h, h + 1) for h in range(heads)]
        return [self._observation(extent, group, self.asked) for group in groups]

    def _observation(self, extent: Extent, group: slice, asked: Asked) -> Observation:
        run = slice(extent.offsets[group.start], extent.offsets[group.stop])
        keys, values, positions = (t[run].unflatten(0, (group.stop - group.start, -1)) for t in extent.entries())
        queries, lse = (t.unflatten(0, (extent.heads, -1))[group].flatten(0, 1) for t in (asked.queries, self.lse))
        newest = int(asked.positions[-1]) + 1
        return Observation(
            layer=self.layer.index,
            keys=keys,
            values=values,
            positions=positions,
            queries=queries,
            query_positions=asked.positions,
            scaling=of_heads(asked.scaling, group, extent.heads),
            token_ids=torch.empty(0, dtype=torch.int32),
            seen=newest,
            generator=torch.Generator().manual_seed(self.layer.index * 1_000_003 + newest),
            lse=lse,
        )


def turn_of(rotations: Rotations | None, layer: int) -> Turn | None:
    """One layer's rotation."""
    return None if rotations is None else partial(_turned, rotations, layer)


def _turned(rotations: Rotations, layer: int, keys: Tensor, moves: Tensor) -> Tensor:
    """Stores turn keys back to position 0, and from there to their own."""
    return rotations.place(keys, (-moves).clamp(min=0), moves.clamp(min=0), layer)


def seal_layer(layer: LayerCache, packing: Packing | None, seen: int, events: Events | None) -> None:
    """No decision of this read can touch a full-attention layer any more: pack what is dense, but for the entries
    that the store keeps back, the newest of each head.

    What was packed before and untouched since is never quantised twice. Those kept back that were decided about
    stay in an extent of their own, the others in the tail.
    """
    sealer = None if packing is None else packing.at(layer)
    back = 0 if packing is None else packing.keeps_back()
    in_tail = min(back, len(layer.tail))
    if sealer is not None and layer.extents[layer.sealed :]:
        left = [back - in_tail] * layer.extents[-1].heads
        sealed: list[Extent] = []
        packed: list[Extent] = []
        for extent in reversed(layer.extents[layer.sealed :]):
            parts = [extent]  # packed before, and untouched since
            if extent.kept and isinstance(extent.block, DenseBlock):
                newest = [min(n, count) for n, count in zip(left, extent.counts, strict=True)]
                old, new = split(extent, newest)
                done = [] if old is None else [sealer.seal(old)]
                packed += done
                parts = done if new is None else [*done, new]
            left = [n - min(n, count) for n, count in zip(left, extent.counts, strict=True)]
            sealed = [*parts, *sealed]
        layer.extents = (*layer.extents[: layer.sealed], *sealed)
        _record(layer, packed, seen, events)
    layer.sealed = len(layer.extents)
    tail = layer.seal_tail(sealer, count=len(layer.tail) - in_tail)
    if tail is not None and sealer is not None:
        _record(layer, [tail], seen, events)


def _record(layer: LayerCache, extents: list[Extent], seen: int, events: Events | None) -> None:
    for extent in extents:
        if events is not None:
            events.add(sealing(layer, seen, extent))


def sealing(layer: LayerCache, time: int, extent: Extent) -> Replaced | Followed:
    """What there is to log of an extent that was packed at `time`."""
    if layer.leader is None:
        return Replaced(layer.index, time, extent)
    block = extent.block
    assert isinstance(block, KeylessBlock), "a layer that follows holds values alone"
    led = tuple(extent.head_positions(head)[block.own_count :].clone() for head in range(extent.heads))
    return Followed(layer.index, time, layer.leader.index, led)


def split(extent: Extent, newest: list[int]) -> tuple[Extent | None, Extent | None]:
    """-> an extent without the newest n entries of each head, and one of just these; None where there are none."""
    if not any(newest):
        return extent, None
    if list(extent.counts) == newest:
        return None, extent
    columns = extent.entries()
    edges = [(a, b - n, b) for (a, b), n in zip(pairwise(extent.offsets), newest, strict=True)]
    old, new = [slice(a, m) for a, m, _ in edges], [slice(m, b) for _, m, b in edges]
    return _of_runs(columns, old), _of_runs(columns, new)


def _of_runs(columns: tuple[Tensor, Tensor, Tensor], runs: list[slice]) -> Extent:
    """One run of entries per head, copied into an extent."""
    keys, values, positions = (torch.cat([column[run] for run in runs]) for column in columns)
    offsets = tuple(accumulate((run.stop - run.start for run in runs), initial=0))
    return Extent(DenseBlock(keys, values), positions, offsets, shared=False)
