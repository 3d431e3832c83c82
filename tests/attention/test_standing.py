"""What is told of sequences once holds until something else is held; then nobody uses it again."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from farspan.attention import Rows, Standing, attend, backend, native, standing
from farspan.attention.scaling import Scaling
from farspan.cache import LayerCache
from tests.attention.test_attend import SCALING, D, G, H, Int8Packer, World

pytestmark = [
    pytest.mark.usefixtures("poisoned"),
    pytest.mark.skipif(native.available() is not None, reason="no C++ kernels here"),
]


@pytest.fixture(autouse=True)
def _native(monkeypatch):
    monkeypatch.setenv("FARSPAN_KERNELS", "native")
    backend.cache_clear()
    yield
    backend.cache_clear()


def rows_of(caches: list[LayerCache]) -> list[Rows]:
    return [Rows(cache, start, 1) for start, cache in enumerate(caches)]


def filled(world: World, window: int | None = None) -> LayerCache:
    cache = LayerCache(0, window)
    if window is None:
        world.sealed(cache, 40, Int8Packer())
        world.ragged(cache, [7, 2])
    world.feed(cache, 3)
    return cache


happenings = st.lists(st.sampled_from(["token", "token", "token", "seal", "pack", "drop", "fork"]), max_size=25)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**20), happens=happenings, sinks=st.booleans())
def test_every_token_gets_what_a_fresh_call_gives(seed, happens, sinks):
    world = World(seed, torch.bfloat16)
    first = filled(world)
    caches = [first, first.fork(), filled(world)]
    scaling = Scaling(SCALING, softcap=2.0, sinks=torch.linspace(-1, 1, H * G)) if sinks else SCALING
    stood: Standing | None = None
    for happening in happens:
        if happening == "fork":
            caches[1] = caches[1].fork()
            stood = None  # other sequences, another step
        for cache in caches:
            if happening == "seal" or happening == "pack":
                cache.seal_tail(Int8Packer() if happening == "pack" else None)
            if happening == "drop":
                cache.tail.drop_first(len(cache.tail) // 2)
            world.feed(cache, 1)
        query = world.draw(H * G, 3, D)
        if stood is None or not stood.holds():
            stood = standing(query, rows_of(caches))
        assert stood is not None
        assert torch.equal(stood.attend(query, scaling), attend(query, rows_of(caches), scaling))


def test_it_holds_while_only_tokens_come_and_not_beyond():
    world = World(3)
    for change in ("outgrown", "sealed", "dropped", "let go", "another step"):
        cache = LayerCache(0)
        world.sealed(cache, 5)
        world.feed(cache, 2, capacity=6)
        query = world.draw(H * G, 1, D)
        stood = standing(query, rows_of([cache]))
        assert stood is not None
        world.feed(cache, 4)
        assert stood.holds()
        match change:
            case "outgrown":
                world.feed(cache, 1)
            case "sealed":
                cache.seal_tail(None)
                world.feed(cache, 1)
            case "dropped":
                cache.tail.drop_first(1)
            case "let go":
                cache.extents = ()
            case "another step":
                assert standing(query, rows_of([cache])) is not None
        assert not stood.holds(), change


def test_a_window_moves_on():
    world = World(5)
    cache, stood = filled(world, window=4), None
    for _ in range(12):
        world.feed(cache, 1)
        query = world.draw(H * G, 1, D)
        if stood is None or not stood.holds():
            stood = standing(query, rows_of([cache]))
        assert stood is not None
        assert torch.equal(stood.attend(query, SCALING), attend(query, rows_of([cache]), SCALING))
        cache.trim_window(2)


def test_what_is_only_brought_for_a_call_is_not_held_on_to():
    world = World(7)
    cache = filled(world)
    extent = cache.extents[0]
    cache.extents = (extent.elsewhere(lambda: extent.block, extent.nbytes), *cache.extents[1:])
    assert standing(world.draw(H * G, 1, D), rows_of([cache])) is None
