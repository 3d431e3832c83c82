"""Dropping tokens that the caller is done with: their entries go from every full-attention layer, positions stay."""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor

from farspan.cache import DenseBlock, Extent, LayerCache, SequenceCache
from farspan.cache.sequence import Kept, Replaced
from farspan.errors import PlanDoesNotApply, UsageError
from farspan.runtime.entries import select_state
from farspan.runtime.packing import Packing


def drop(cache: SequenceCache, gone: Tensor, packing: Packing | None) -> None:
    """Forget the tokens that `gone` [seen] bool marks, in a cache that this may change: a fork.

    Extents that hold none of them stay shared, and in their file; the others are copied without them, and packed anew
    where they were packed, which may lose as much as packing did. Raises UsageError where a head would be left empty,
    PlanDoesNotApply for a store that packs by queries, of which there are none now, or one whose layers share keys.
    """
    full = [layer for layer in cache.layers if layer.window is None]
    if any(layer.leader is not None for layer in full):
        raise PlanDoesNotApply(
            "some layers of this context have the keys of others, entry for entry, and nothing can be dropped of them; "
            "read without what is to be dropped, or with another store"
        )
    for layer in full:  # all are checked before any is changed
        every = range(len(layer.tail.keys) if len(layer.tail) else layer.extents[-1].heads)
        heads = [head for head in every if head not in layer.pruned]
        if any(bool(gone[layer.positions(head).long().cpu()].all()) for head in heads):
            raise UsageError(
                f"dropping these tokens would leave a head of layer {layer.index} with nothing to attend to; "
                "leave some of what it holds"
            )
    for layer in full:
        _drop(layer, gone.to(layer.positions(0).device), cache, packing)


def _drop(layer: LayerCache, gone: Tensor, cache: SequenceCache, packing: Packing | None) -> None:
    open_from = layer.sealed
    heads = len(layer.tail.keys) if len(layer.tail) else layer.extents[-1].heads
    if len(layer.tail) and bool(gone[layer.tail.positions().long()].any()):
        layer.seal_tail(None)
    stays = [~gone[layer.positions(head).long()] for head in range(heads)]
    if all(bool(each.all()) for each in stays):
        layer.sealed = open_from
        return
    select_state(layer, stays)
    left: list[Extent] = []
    sealed = 0
    for index, extent in enumerate(layer.extents):
        rest = _without(extent, gone, layer, packing)
        if rest is not None:
            left.append(rest)
            sealed += index < open_from
    before = {id(extent) for extent in layer.extents}
    layer.extents, layer.sealed, layer.own = tuple(left), sealed, len(left)
    if cache.events is not None:
        cache.events.add(Kept(layer.index, cache.seen, tuple(layer.positions(h).clone() for h in range(heads))))
        for extent in left:
            if id(extent) not in before and not isinstance(extent.block, DenseBlock):
                cache.events.add(Replaced(layer.index, cache.seen, extent))


def _without(extent: Extent, gone: Tensor, layer: LayerCache, packing: Packing | None) -> Extent | None:
    """The extent without what is gone: itself where that is nothing, None where it is all."""
    if extent.last < extent.first or not bool(gone[extent.first : extent.last + 1].any()):
        return extent
    keys, values, positions = extent.entries()
    stays = ~gone[positions.long()]
    if bool(stays.all()):
        return extent
    if not bool(stays.any()):
        return None
    counts = [int(stays[a:b].sum()) for a, b in zip(extent.offsets, extent.offsets[1:], strict=False)]
    dense = DenseBlock(keys[stays], values[stays])
    rest = Extent(dense, positions[stays], tuple(accumulate(counts, initial=0)), shared=False)
    if packing is None or isinstance(extent.block, DenseBlock):
        return rest
    if packing.store is not None and packing.store.asks(1):
        raise PlanDoesNotApply(
            f"{packing.store.name} packs by queries, and none are at hand to pack anew what is left of an extent; "
            "read without what is to be dropped, or with another store"
        )
    return packing.at(layer).seal(rest)


def token_mask(spans: list[tuple[int, int]], seen: int) -> Tensor:
    """[start, stop) token ranges -> [seen] bool; raises UsageError for one that is no range of the tokens seen."""
    gone = torch.zeros(seen, dtype=torch.bool)
    for start, stop in spans:
        if not 0 <= start < stop <= seen:
            raise UsageError(
                f"tokens {start} to {stop} are no range of the {seen} that were seen; give (start, stop) with "
                f"0 <= start < stop <= {seen}, or a Segment"
            )
        gone[start:stop] = True
    return gone
