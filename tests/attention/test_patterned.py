"""A chunk under a pattern attends as one dense softmax would, masked key by key as the pattern's fields say."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from farspan.attention import Pattern, Rows, Sight, attend, backend, patterned
from farspan.attention.native import library
from farspan.cache import LayerCache
from tests.attention import sights as made
from tests.attention.sights import LAYERS, RUNS, SIGHTS, D, columns, dense, shows, sights

SCALING = 0.4
ONE_CALL = bool(library()[0] is not None and library()[0].fs_sees())

pytestmark = pytest.mark.usefixtures("poisoned")


@pytest.fixture(
    params=["naive", "torch", pytest.param("native", marks=pytest.mark.skipif(not ONE_CALL, reason="no AMX"))],
    autouse=True,
)
def route(request, monkeypatch):
    """Slices on two routes, and one call of the C++ kernels, which is never cut into slices."""
    monkeypatch.setenv("FARSPAN_KERNELS", request.param)
    backend.cache_clear()
    if request.param == "native":
        monkeypatch.setattr(patterned, "_sliced", None)
    yield request.param
    backend.cache_clear()


def layer_of(seed: int, heads: int, runs: list[tuple[str, int]], tokens: int) -> LayerCache:
    """In bfloat16 where the C++ kernels attend: they take nothing else."""
    return made.layer_of(
        seed, heads, runs, tokens, torch.bfloat16 if backend("cpu").name == "native" else torch.float32
    )


def near(got: torch.Tensor, want: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Whether out is as near as its dtype lets it come: in bfloat16, weights, parts and results are rounded."""
    share = 2**-7 if got.dtype == torch.bfloat16 else 2e-5
    assert bool(((got.double() - want[0]).abs() <= share * want[1] + 2e-5).all())


def check(layer: LayerCache, tokens: int, group: int, pattern: Pattern) -> None:
    g = torch.Generator().manual_seed(tokens)
    query = torch.randn(layer.tail.keys.shape[0] * group, tokens, D, generator=g).to(layer.tail.keys.dtype)
    got = attend(query, [Rows(layer, 0, tokens, pattern)], SCALING)
    near(got, dense(query, layer, tokens, pattern, SCALING))


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
    query = torch.randn(4, 3 * 75, D, generator=torch.Generator().manual_seed(0)).to(layers[0].tail.keys.dtype)
    rows = [Rows(layer, 75 * i, 75, p) for i, (layer, p) in enumerate(zip(layers, patterns, strict=True))]
    got = attend(query, rows, SCALING)
    for i, (layer, its) in enumerate(zip(layers, patterns, strict=True)):
        asked = query[:, 75 * i : 75 * (i + 1)]
        want = dense(asked, layer, 75, its or Pattern(heads=(Sight(window=1000),)), SCALING)
        near(got[75 * i : 75 * (i + 1)], want)


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
