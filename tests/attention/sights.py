"""Layers that hold entries in many ways, sights, and the definition of what queries under them get."""

from __future__ import annotations

import math
from itertools import accumulate

import torch
from hypothesis import strategies as st
from torch import Tensor

from farspan.attention import Pattern, Sight
from farspan.attention.scaling import scored, sinks_of
from farspan.cache import DenseBlock, Extent, GroupBlock, LayerCache

D = 16


class Int8:
    """Packs an extent as the int8 store does."""

    def seal(self, extent: Extent) -> Extent:
        keys, values = extent.block.unpack(0, extent.offsets[-1])
        return extent.holding(GroupBlock.pack(keys, values, extent.counts, 16))


def shows(sight: Sight, query: int, key: int) -> bool:
    """One pair, from the fields."""
    if key > query:
        return False
    columns = [] if sight.columns is None else sight.columns.tolist()
    near = query - key < sight.window
    return near or key < sight.sinks or key in columns or any(a <= query - key < b for a, b in sight.bands)


def dense(query: Tensor, layer: LayerCache, tokens: int, pattern: Pattern, scaling: float) -> tuple[Tensor, Tensor]:
    """In float64, all that each head holds in one matrix, pair by pair -> out [T, Hq, Dv], and the same of values
    without signs, which says how much rounding of weights can amount to.
    """
    heads = layer.tail.keys.shape[0]
    asked = query.double().unflatten(0, (heads, -1))
    first = layer.tail.last - tokens + 1
    outs, sizes = [], []
    for h in range(heads):
        spans = [(*e.block.unpack(*e.offsets[h : h + 2]), e.head_positions(h)) for e in layer.extents]
        spans.append((layer.tail.keys[h], layer.tail.values[h], layer.tail.positions()))
        keys, values, at = (torch.cat(column) for column in zip(*spans, strict=True))
        since = math.inf if pattern.dense_from is None else pattern.dense_from
        visible = [
            [k <= q if q >= since else shows(pattern.sight(h), q, k) for k in at.tolist()]
            for q in range(first, first + tokens)
        ]
        scores = scored(asked[h] @ keys.double().T, scaling).masked_fill(~torch.tensor(visible), -math.inf)
        sinks = sinks_of(scaling)
        if sinks is not None:
            its = sinks.double().unflatten(0, (heads, -1))[h][:, None, None].expand(-1, tokens, 1)
            scores = torch.cat([scores, its], -1)
        weights = scores.softmax(-1)[..., : keys.shape[0]]
        outs.append(weights @ values.double())
        sizes.append(weights @ values.double().abs())
    out, size = (torch.stack(x).flatten(0, 1).transpose(0, 1) for x in (outs, sizes))
    return out, size


def layer_of(
    seed: int,
    heads: int,
    runs: list[tuple[str, int]],
    tokens: int,
    dtype: torch.dtype = torch.float32,
    sizes: tuple[int, int] = (D, D),
) -> LayerCache:
    """Extents of the kinds and lengths named, then a tail; each kind its own way of holding."""
    size, value_size = sizes
    g, layer = torch.Generator().manual_seed(seed), LayerCache(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g).to(dtype)

    first = 0
    for kind, count in runs:
        if kind == "ragged":  # each head other tokens, and another number of them
            held = [torch.randperm(count, generator=g)[: 1 + (count * (h + 1)) // (heads + 1)] for h in range(heads)]
            at = torch.cat([first + its.sort().values for its in held]).to(torch.int32)
            offsets = tuple(accumulate((len(its) for its in held), initial=0))
            extent = Extent(DenseBlock(draw(len(at), size), draw(len(at), value_size)), at, offsets, shared=False)
        else:
            at = torch.arange(first, first + count, dtype=torch.int32)
            extent = Extent.dense(draw(heads, count, size), draw(heads, count, value_size), at)
            extent = Int8().seal(extent) if kind == "int8" else extent
        layer.extents = (*layer.extents, extent)
        first += count
    layer.sealed = len(layer.extents)
    layer.tail.append(draw(heads, tokens, size), draw(heads, tokens, value_size), first, capacity=2 * tokens)
    return layer


def columns(*at: int) -> Tensor:
    return torch.tensor(at, dtype=torch.int32)


SIGHTS = {
    "itself alone": Sight(window=1),
    "sinks and window": Sight(window=9, sinks=3),
    "sinks that meet the window": Sight(window=40, sinks=90),
    "columns": Sight(window=5, sinks=2, columns=columns(4, 5, 40, 41, 77, 120)),
    "bands": Sight(window=7, bands=((9, 12), (12, 30), (55, 56))),
    "bands and columns": Sight(window=1, sinks=1, bands=((20, 25),), columns=columns(1, 33, 34, 90)),
}
LAYERS = {
    "tail": [],
    "dense": [("dense", 70)],
    "int8": [("int8", 33), ("int8", 50)],
    "ragged": [("ragged", 80)],
    "all": [("dense", 21), ("ragged", 40), ("int8", 30)],
}


@st.composite
def sights(draw) -> Sight:
    window = draw(st.integers(1, 40))
    edges = sorted(draw(st.sets(st.integers(window, 90), max_size=6)))
    bands = tuple(zip(edges[::2], edges[1::2], strict=False))
    at = draw(st.sets(st.integers(0, 140), max_size=12))
    return Sight(window=window, sinks=draw(st.integers(0, 12)), bands=bands, columns=columns(*sorted(at)))


RUNS = st.lists(st.tuples(st.sampled_from(["dense", "int8", "ragged"]), st.integers(3, 45)), max_size=3)
