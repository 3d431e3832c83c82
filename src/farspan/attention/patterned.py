"""Attention of a chunk under a pattern: in one call, or slices of queries, each to the keys that some of it sees.

What is computed is proportional to the pattern: what no query of a slice sees is neither copied nor unpacked nor
multiplied; within a slice, a mask of its own size says the rest. The C++ kernel does the same by tiles of keys, where
it can be had (`sighted`).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from farspan.attention import sighted
from farspan.attention.kernels import in_one_call, seeing_attention, seeing_mask
from farspan.attention.pattern import Chosen, Pattern, Sight
from farspan.attention.scaling import of_heads, sunk
from farspan.attention.sighted import Held
from farspan.cache import DenseBlock, Extent, LayerCache
from farspan.cache.extent import UNPACK_ENTRIES

# Queries of a slice: more waste more at the edges of windows and bands, which are computed as whole rectangles; fewer
# fill the kernel's rows (G to a token) less. Measured at head size 128, G = 4, windows of 1k and 2k.
ROWS, LEAST = 1024, 32


def _at(held: Held, chosen: Chosen) -> Iterator[Held]:
    """Views of the runs, then a copy of the single ones."""
    for run in chosen.runs:
        yield Held(held.keys[:, run], held.values[:, run], held.positions[run])
    if chosen.single.numel():
        keys, values = (t.index_select(1, chosen.single) for t in (held.keys, held.values))
        yield Held(keys, values, held.positions[chosen.single])


def attend(query: Tensor, first: int, layer: LayerCache, pattern: Pattern, scaling: float, out: Tensor) -> None:
    """query [Hq, T, D] of the tokens at positions `first`.., into out [T, Hq, Dv].

    Queries that the pattern makes dense are none of its business: give only those before. The layer has no window of
    its own, and its tail holds the new tokens.
    """
    heads = layer.tail.keys.shape[0]
    grouped, by_head = query.unflatten(0, (heads, -1)), out.unflatten(1, (heads, -1))
    together = all(extent.shared for extent in layer.extents)
    for group, sight in pattern.groups(heads, together=together):
        _attend(grouped[group], first, layer, group, sight, scaling, by_head[:, group])


def _attend(
    query: Tensor, first: int, layer: LayerCache, heads: slice, sight: Sight, scaling: float, out: Tensor
) -> None:
    """query [h, G, T, D] of heads that see alike, into out [T, h, G, Dv]."""
    tokens, tail = query.shape[2], layer.tail
    held = [part for extent in layer.extents if (part := _reached(extent, heads, sight, first, tokens)) is not None]
    held.append(Held(tail.keys[heads], tail.values[heads], tail.positions()))
    if in_one_call(query, held, scaling):
        last = first + tokens - 1
        runs = [run for part in held for run in _at(part, sight.some(first, last, part.positions))]
        of_these = of_heads(scaling, heads, tail.keys.shape[0])
        sighted.attend(query, first, runs, sight, of_these, out)
        return
    _sliced(query, first, held, heads, sight, scaling, out)


def _sliced(
    query: Tensor, first: int, held: list[Held], heads: slice, sight: Sight, scaling: float, out: Tensor
) -> None:
    """As `_attend`, slice by slice.

    What every query of a slice sees needs no mask, and the rest, which has one, holds each query's own key: so the two
    merge without a query that saw nothing.
    """
    tokens = query.shape[2]
    narrowest = min([sight.window, *(far - near for near, far in sight.bands)])
    rows = max(LEAST, min(ROWS // query.shape[1], narrowest // 4))
    known, mask = torch.empty(0), torch.empty(0)
    for start in range(0, tokens, rows):
        asked = query[:, :, start : start + rows]
        low, high = first + start, first + start + asked.shape[2] - 1
        edges = _joined([run for part in held for run in _at(part, sight.edges(low, high, part.positions))])
        situation = _situation(sight, low, edges.positions)
        if not (start and high - low + 1 == rows and torch.equal(known, situation)):
            asking = torch.arange(low, high + 1, dtype=torch.int32, device=query.device)
            sees = sight.sees(asking, edges.positions)
            known, mask = situation, seeing_mask(asked, edges.keys, edges.values, scaling, sees)
        its, lse = seeing_attention(asked, edges.keys, edges.values, scaling, mask)
        shared = [run for part in held for run in _at(part, sight.every(low, high, part.positions))]
        if shared:
            every = _joined(shared)
            other, its_lse = seeing_attention(asked, every.keys, every.values, scaling, None)
            its = its.lerp_(other, (its_lse - lse).sigmoid()[..., None].to(its.dtype))
            lse = torch.logaddexp(lse, its_lse)
        its = sunk(its, lse, scaling, heads)
        out[start : start + rows] = its.permute(2, 0, 1, 3)


def _situation(sight: Sight, low: int, keys: Tensor) -> Tensor:
    """keys [n] at their positions -> [n] numbers, the same for those slices of queries whose masks are the same.

    A sink or column that stands before `low`, where the slice begins, is seen by all of it, wherever it stands; of
    others, the distance counts.
    """
    always = keys < sight.sinks
    if sight.columns is not None:
        always |= torch.isin(keys, sight.columns)
    return (2 * (keys - low) + always).masked_fill_(always & (keys <= low), -(2**31))


def _joined(parts: list[Held]) -> Held:
    parts = [part for part in parts if part.positions.numel()]
    if len(parts) == 1:
        return parts[0]
    keys, values, positions = zip(*parts, strict=True)
    return Held(torch.cat(keys, 1), torch.cat(values, 1), torch.cat(positions))


def _reached(extent: Extent, heads: slice, sight: Sight, first: int, tokens: int) -> Held | None:
    """What of an extent some query of the chunk may see, in floating point and in order; None if nothing. More comes
    where it costs nothing: a view.
    """
    positions = extent.head_positions(heads.start)  # of all these heads: one, or the extent's are shared
    runs, single = sight.some(first, first + tokens - 1, positions)
    if not (runs or single.numel()):
        return None
    if extent.kept and isinstance(extent.block, DenseBlock) and extent.uniform:
        return _run(extent, heads, 0, positions.numel())
    chosen = torch.cat([*(torch.arange(run.start, run.stop, device=positions.device) for run in runs), single])
    chosen = chosen.sort().values
    parts = []
    for start in range(0, positions.numel(), UNPACK_ENTRIES):
        its = chosen[(chosen >= start) & (chosen < start + UNPACK_ENTRIES)]
        if its.numel():
            low, high = int(its[0]), int(its[-1]) + 1
            lent = _run(extent, heads, low, high)
            parts += [lent] if its.numel() == high - low else _at(lent, Chosen([], its - low))
    return _joined(parts)


def _run(extent: Extent, heads: slice, start: int, stop: int) -> Held:
    """Entries start..stop of each of these heads; views where they are held in floating point, side by side."""
    block, positions = extent.block, extent.head_positions(heads.start)[start:stop]
    if isinstance(block, DenseBlock) and extent.uniform:
        keys, values = (t.unflatten(0, (extent.heads, -1))[heads, start:stop] for t in (block.keys, block.values))
        return Held(keys, values, positions)
    runs = [block.unpack(extent.offsets[h] + start, extent.offsets[h] + stop) for h in range(heads.start, heads.stop)]
    keys, values = (torch.stack(column) for column in zip(*runs, strict=True))
    return Held(keys, values, positions)
