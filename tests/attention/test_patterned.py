"""A chunk under a pattern attends as one dense softmax would, masked key by key as the pattern's fields say."""

from __future__ import annotations

import math
from itertools import accumulate

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from farspan.attention import Pattern, Rows, Sight, attend, backend, patterned
from farspan.cache import DenseBlock, Extent, GroupBlock, LayerCache

D, SCALING = 16, 0.4

pytestmark = pytest.mark.usefixtures("poisoned")


@pytest.fixture(params=["naive", "torch"], autouse=True)
def route(request, monkeypatch):
    monkeypatch.setenv("FARSPAN_KERNELS", request.param)
    backend.cache_clear()
    yield request.param
    backend.cache_clear()


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


def dense(query: Tensor, layer: LayerCache, tokens: int, pattern: Pattern) -> Tensor:
    """In float64: all that each head holds in one matrix, pair by pair."""
    heads = layer.tail.keys.shape[0]
    asked = query.double().unflatten(0, (heads, -1))
    first = layer.tail.last - tokens + 1
    outs = []
    for h in range(heads):
        spans = [(*e.block.unpack(*e.offsets[h : h + 2]), e.head_positions(h)) for e in layer.extents]
        spans.append((layer.tail.keys[h], layer.tail.values[h], layer.tail.positions()))
        keys, values, at = (torch.cat(column) for column in zip(*spans, strict=True))
        since = math.inf if pattern.dense_from is None else pattern.dense_from
        visible = [
            [k <= q if q >= since else shows(pattern.sight(h), q, k) for k in at.tolist()]
            for q in range(first, first + tokens)
        ]
        scores = (asked[h] @ keys.double().T * SCALING).masked_fill(~torch.tensor(visible), -math.inf)
        outs.append(scores.softmax(-1) @ values.double())
    return torch.stack(outs).flatten(0, 1).transpose(0, 1)


def layer_of(seed: int, heads: int, runs: list[tuple[str, int]], tokens: int) -> LayerCache:
    """Extents of the kinds and lengths named, then a tail; each kind its own way of holding."""
    g, layer = torch.Generator().manual_seed(seed), LayerCache(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    first = 0
    for kind, count in runs:
        if kind == "ragged":  # each head other tokens, and another number of them
            held = [torch.randperm(count, generator=g)[: 1 + (count * (h + 1)) // (heads + 1)] for h in range(heads)]
            at = torch.cat([first + its.sort().values for its in held]).to(torch.int32)
            offsets = tuple(accumulate((len(its) for its in held), initial=0))
            extent = Extent(DenseBlock(draw(len(at), D), draw(len(at), D)), at, offsets, shared=False)
        else:
            at = torch.arange(first, first + count, dtype=torch.int32)
            extent = Extent.dense(draw(heads, count, D), draw(heads, count, D), at)
            extent = Int8().seal(extent) if kind == "int8" else extent
        layer.extents = (*layer.extents, extent)
        first += count
    layer.sealed = len(layer.extents)
    layer.tail.append(draw(heads, tokens, D), draw(heads, tokens, D), first, capacity=2 * tokens)
    return layer


def check(layer: LayerCache, tokens: int, group: int, pattern: Pattern) -> None:
    g = torch.Generator().manual_seed(tokens)
    query = torch.randn(layer.tail.keys.shape[0] * group, tokens, D, generator=g)
    got = attend(query, [Rows(layer, 0, tokens, pattern)], SCALING)
    torch.testing.assert_close(got.double(), dense(query, layer, tokens, pattern), atol=2e-5, rtol=2e-5)


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


@pytest.mark.parametrize("held", LAYERS)
@pytest.mark.parametrize("sight", SIGHTS)
def test_a_chunk_sees_what_the_pattern_says(sight, held, monkeypatch):
    monkeypatch.setattr(patterned, "ROWS", 64)  # several slices, the last one shorter
    check(layer_of(1, 2, LAYERS[held], 75), 75, 3, Pattern(heads=(SIGHTS[sight],)))


def test_every_head_sees_its_own(monkeypatch):
    monkeypatch.setattr(patterned, "ROWS", 64)
    heads = (SIGHTS["columns"], SIGHTS["sinks and window"], SIGHTS["bands"])
    for held in LAYERS.values():
        check(layer_of(2, 3, held, 70), 70, 2, Pattern(heads=heads))


@pytest.mark.parametrize("since", [0, 90, 91, 130, 160, 165, 166, 999])
def test_rows_from_some_position_on_see_everything(since):
    check(layer_of(3, 2, LAYERS["all"], 75), 75, 2, Pattern(heads=(SIGHTS["sinks and window"],), dense_from=since))


def test_only_the_sequence_that_has_a_pattern_is_under_it():
    layers = [layer_of(seed, 2, LAYERS["all"], 75) for seed in (4, 5, 6)]
    pattern = Pattern(heads=(SIGHTS["bands"],), dense_from=130)
    patterns = [None, pattern, None]
    query = torch.randn(4, 3 * 75, D, generator=torch.Generator().manual_seed(0))
    rows = [Rows(layer, 75 * i, 75, p) for i, (layer, p) in enumerate(zip(layers, patterns, strict=True))]
    got = attend(query, rows, SCALING)
    for i, (layer, its) in enumerate(zip(layers, patterns, strict=True)):
        asked = query[:, 75 * i : 75 * (i + 1)]
        want = dense(asked, layer, 75, its or Pattern(heads=(Sight(window=1000),)))
        torch.testing.assert_close(got[75 * i : 75 * (i + 1)].double(), want, atol=2e-5, rtol=2e-5)


@st.composite
def sights(draw) -> Sight:
    window = draw(st.integers(1, 40))
    edges = sorted(draw(st.sets(st.integers(window, 90), max_size=6)))
    bands = tuple(zip(edges[::2], edges[1::2], strict=False))
    at = draw(st.sets(st.integers(0, 140), max_size=12))
    return Sight(window=window, sinks=draw(st.integers(0, 12)), bands=bands, columns=columns(*sorted(at)))


RUNS = st.lists(st.tuples(st.sampled_from(["dense", "int8", "ragged"]), st.integers(3, 45)), max_size=3)


@settings(max_examples=40)
@given(st.data())
def test_whatever_is_held_and_however_heads_see(data):
    heads, group = data.draw(st.sampled_from([(1, 1), (2, 1), (1, 3), (3, 2)]))
    layer = layer_of(data.draw(st.integers(0, 99)), heads, data.draw(RUNS), tokens := data.draw(st.integers(1, 70)))
    seen = data.draw(st.one_of(st.tuples(sights()), st.tuples(*[sights()] * heads)))
    since = data.draw(st.one_of(st.none(), st.integers(0, 200)))
    check(layer, tokens, group, Pattern(heads=seen, dense_from=since))


@settings(max_examples=60)
@given(sights(), st.integers(0, 120), st.integers(0, 30), st.sets(st.integers(0, 150), max_size=60))
def test_what_a_slice_sees_falls_into_what_all_of_it_sees_and_the_edges(sight, first, more, held):
    keys, queries = columns(*sorted(held)), range(first, first + more + 1)
    some, every, edges = (_indices(f(first, first + more, keys)) for f in (sight.some, sight.every, sight.edges))
    assert some == [i for i, k in enumerate(keys.tolist()) if any(shows(sight, q, k) for q in queries)]
    assert all(keys[i] < first and all(shows(sight, q, int(keys[i])) for q in queries) for i in every)
    assert sorted(every + edges) == some


@settings(max_examples=60)
@given(sights(), sights(), st.integers(0, 120), st.integers(0, 40), st.one_of(st.none(), st.integers(0, 200)))
def test_pairs_are_those_that_queries_see(one, other, first, more, since):
    def seen(sight: Sight, last: int) -> int:
        return int(sight.sees(torch.arange(first, last + 1), torch.arange(last + 1)).sum())

    last = first + more
    assert one.pairs(first, last) == seen(one, last)
    sparse = min(last, last if since is None else max(first, since) - 1)
    dense = sum(q + 1 for q in range(max(first, sparse + 1), last + 1))
    pattern = Pattern(heads=(one, other), dense_from=since)
    assert pattern.pairs(first, last) == (seen(one, sparse) + seen(other, sparse)) / 2 + dense


def _indices(chosen) -> list[int]:
    return sorted([*(i for run in chosen.runs for i in range(run.start, run.stop)), *chosen.single.tolist()])


def test_what_nobody_sees_is_never_touched():
    """Keys outside of the pattern are NaN, and nothing comes of it."""
    layer = layer_of(7, 2, [("dense", 100)], 64)
    block = layer.extents[0].block
    for part in (block.keys, block.values):
        part.view(2, 100, D)[:, 4:80] = torch.nan
    pattern = Pattern(heads=(Sight(window=20, sinks=4),))
    got = attend(torch.randn(4, 64, D), [Rows(layer, 0, 64, pattern)], SCALING)
    assert bool(got.isfinite().all())


@pytest.mark.parametrize(("sinks", "window", "bands"), [(0, 0, ()), (-1, 3, ()), (0, 5, ((4, 6),)), (0, 5, ((6, 6),))])
def test_a_sight_that_contradicts_itself_is_refused(sinks, window, bands):
    with pytest.raises(ValueError, match=r"sees itself|band"):
        Sight(sinks=sinks, window=window, bands=bands)


def test_patterns_that_show_everything_say_so():
    assert Pattern(heads=(Sight(window=50),)).sees_all(10, 49)
    assert not Pattern(heads=(Sight(window=50),)).sees_all(10, 50)
    assert Pattern(heads=(Sight(window=1),), dense_from=10).sees_all(10, 50)
    assert not Pattern(heads=(Sight(window=1),), dense_from=11).sees_all(10, 50)
    assert not Pattern(heads=(Sight(window=99), Sight(window=9))).sees_all(10, 50)
