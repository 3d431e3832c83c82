"""A packed batch attends as its sequences would alone, and as one dense masked softmax over stored positions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from farspan.attention import Rows, attend, backend, kernels
from farspan.attention import attend as attend_module
from farspan.cache import Extent, GroupBlock, LayerCache

H, G, D = 2, 3, 16
SCALING = 0.3

pytestmark = pytest.mark.usefixtures("poisoned")


@pytest.fixture(params=["naive", "torch"], autouse=True)
def route(request, monkeypatch):
    monkeypatch.setenv("FARSPAN_KERNELS", request.param)
    backend.cache_clear()
    yield request.param
    backend.cache_clear()


class Int8Packer:
    """Packs ragged extents as the int8 store does, with short groups so that several stand in an extent."""

    def seal(self, extent: Extent) -> Extent:
        keys, values = extent.block.unpack(0, extent.offsets[-1])
        block = GroupBlock.pack(keys, values, extent.counts, 16)
        return Extent(block, extent.positions, extent.offsets, shared=extent.shared)


class World:
    """Draws keys, values and queries; the same seed draws the same ones."""

    def __init__(self, seed: int, dtype: torch.dtype = torch.float32) -> None:
        self.generator, self.dtype = torch.Generator().manual_seed(seed), dtype

    def draw(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator).to(self.dtype)

    def feed(self, cache: LayerCache, count: int, capacity: int = 0) -> None:
        start = cache.tail.last + 1 if len(cache.tail) else self.next_of(cache)
        cache.tail.append(self.draw(H, count, D), self.draw(H, count, D), start, capacity)

    @staticmethod
    def next_of(cache: LayerCache) -> int:
        return max((extent.last for extent in cache.extents), default=-1) + 1

    def sealed(self, cache: LayerCache, count: int, packer: Int8Packer | None = None) -> None:
        self.feed(cache, count)
        cache.seal_tail(packer)

    def ragged(self, cache: LayerCache, counts: list[int], packer: Int8Packer | None = None) -> None:
        """An extent whose heads hold different tokens, and different numbers of them."""
        first = self.next_of(cache)
        held = [torch.randperm(max(counts) + 3, generator=self.generator)[:n].sort().values for n in counts]
        positions = torch.cat([first + h for h in held]).to(torch.int32)
        offsets = tuple(sum(counts[:h]) for h in range(H + 1))
        from farspan.cache import DenseBlock

        block = DenseBlock(self.draw(offsets[-1], D), self.draw(offsets[-1], D))
        extent = Extent(block, positions, offsets, shared=False)
        cache.extents = (*cache.extents, packer.seal(extent) if packer else extent)
        cache.sealed = len(cache.extents)


def dense(query: Tensor, rows: list[Rows]) -> Tensor:
    """Each sequence apart, in float64: all it holds in one matrix, masked by the positions it holds."""
    outs = []
    for row in rows:
        layer, new = row.cache, row.length
        asked = query[:, row.start : row.start + new].double().view(H, G, new, D)
        at = torch.arange(layer.tail.last - new + 1, layer.tail.last + 1)
        heads = []
        for h in range(H):
            spans = [(e.block.unpack(*e.offsets[h : h + 2]), e.head_positions(h)) for e in layer.extents]
            spans.append(((layer.tail.keys[h], layer.tail.values[h]), layer.tail.positions()))
            keys, values = (torch.cat([pair[i] for pair, _ in spans]).double() for i in (0, 1))
            positions = torch.cat([p for _, p in spans])
            visible = positions[None] <= at[:, None]
            if layer.window is not None:
                visible &= positions[None] > at[:, None] - layer.window
            scores = (asked[h] @ keys.T * SCALING).masked_fill(~visible, -math.inf)
            heads.append(scores.softmax(-1) @ values)
        outs.append(torch.stack(heads).flatten(0, 1).transpose(0, 1))
    return torch.cat(outs)


def packed(*caches_and_lengths: tuple[LayerCache, int]) -> list[Rows]:
    rows, start = [], 0
    for cache, length in caches_and_lengths:
        rows.append(Rows(cache, start, length))
        start += length
    return rows


def alone(query: Tensor, rows: list[Rows]) -> Tensor:
    parts = [attend(query[:, r.start : r.start + r.length], [Rows(r.cache, 0, r.length)], SCALING) for r in rows]
    return torch.cat(parts)


def check(world: World, rows: list[Rows], tolerance: float = 2e-5) -> None:
    query = world.draw(H * G, rows[-1].start + rows[-1].length, D)
    got = attend(query, rows, SCALING)
    assert got.shape == (query.shape[1], H * G, D) and got.dtype == query.dtype
    torch.testing.assert_close(got.double(), dense(query, rows), atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(got, alone(query, rows), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("packer", [None, Int8Packer()], ids=["dense", "int8"])
def test_forks_of_one_context_attend_as_if_each_were_alone(seed, packer):
    world = World(seed)
    base = LayerCache(0)
    world.sealed(base, 70, packer)
    world.ragged(base, [40, 23], packer)
    world.feed(base, 9, capacity=60)
    forks = [base.fork() for _ in range(3)]
    for fork, count in zip(forks, (1, 5, 30), strict=True):
        world.feed(fork, count, capacity=100)
    check(world, packed((forks[0], 1), (forks[1], 5), (forks[2], 30)))


def test_sequences_that_share_a_prefix_need_not_stand_side_by_side():
    world = World(5)
    base, other = LayerCache(0), LayerCache(0)
    world.sealed(base, 50)
    world.sealed(other, 20)
    one, two = base.fork(), base.fork()
    for cache, count in ((one, 4), (other, 7), (two, 3)):
        world.feed(cache, count)
    check(world, packed((one, 4), (other, 7), (two, 3)))


def test_a_shared_prefix_is_attended_to_once_for_all(monkeypatch):
    world, keys_seen = World(6), []
    import sys

    module = sys.modules[attend_module.__module__]
    real = module.partial_attention

    def counting(query, keys, *args, **kwargs):
        keys_seen.append(keys.shape[1])
        return real(query, keys, *args, **kwargs)

    monkeypatch.setattr(module, "partial_attention", counting)
    base = LayerCache(0)
    world.sealed(base, 99)
    forks = [base.fork() for _ in range(4)]
    for fork in forks:
        world.feed(fork, 2)
    attend(world.draw(H * G, 8, D), packed(*((fork, 2) for fork in forks)), SCALING)
    assert keys_seen.count(99) == 1


def test_heads_that_hold_nothing_in_an_extent_are_answered_by_the_rest():
    for packer in (None, Int8Packer()):
        world = World(7)
        cache = LayerCache(0)
        world.ragged(cache, [0, 33], packer)
        world.ragged(cache, [12, 0], packer)
        world.feed(cache, 6)
        check(world, packed((cache, 6)))


def test_a_packed_extent_is_unpacked_in_pieces_without_a_seam(monkeypatch):
    whole = Extent.pieces
    monkeypatch.setattr(Extent, "pieces", lambda self: whole(self, limit=7))
    world = World(8)
    cache = LayerCache(0)
    world.ragged(cache, [40, 23], Int8Packer())
    world.feed(cache, 3)
    check(world, packed((cache, 3)))


@pytest.mark.parametrize("window", [1, 2, 7, 24])
@pytest.mark.parametrize("new", [1, 6, 24, 65])
@pytest.mark.parametrize("old", [0, 5, 60])
def test_a_sliding_layer_sees_its_window_and_nothing_else(window, new, old):
    world = World(window * 1000 + new * 10 + old)
    cache = LayerCache(0, window)
    if old:
        world.feed(cache, old)
        cache.trim_window()
    world.feed(cache, new, capacity=200)
    check(world, packed((cache, new)))


def test_sliding_layers_of_a_batch_keep_their_own_windows():
    world = World(9)
    caches = [LayerCache(0, 10) for _ in range(3)]
    for cache, old in zip(caches, (0, 8, 40), strict=True):
        if old:
            world.feed(cache, old)
            cache.trim_window(slack=16)
    lengths = (12, 1, 30)
    for cache, new in zip(caches, lengths, strict=True):
        world.feed(cache, new)
    check(world, packed(*zip(caches, lengths, strict=True)))


def test_bfloat16_is_attended_to_within_its_precision():
    world = World(10, torch.bfloat16)
    cache = LayerCache(0)
    world.sealed(cache, 90)
    world.ragged(cache, [17, 40], Int8Packer())
    world.feed(cache, 11, capacity=40)
    check(world, packed((cache, 11)), tolerance=2e-2)


def test_two_threads_agree_with_one():
    world = World(11)
    cache = LayerCache(0)
    world.sealed(cache, 300)
    world.feed(cache, 40)
    query, rows = world.draw(H * G, 40, D), packed((cache, 40))
    try:
        one = attend(query, rows, SCALING)
        torch.set_num_threads(2)
        two = attend(query, rows, SCALING)
    finally:
        torch.set_num_threads(1)
    torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-6)


def test_attending_changes_nothing_that_is_held():
    world = World(12)
    cache = LayerCache(0)
    world.sealed(cache, 20)
    world.ragged(cache, [5, 9], Int8Packer())
    world.feed(cache, 4)
    query = world.draw(H * G, 4, D)
    held = [t for e in cache.extents for t in (*e.block.tensors().values(), e.positions)]
    held += [cache.tail.keys, cache.tail.values, query]
    before = [t.clone() for t in held]
    attend(query, packed((cache, 4)), SCALING)
    assert all(torch.equal(a, b) for a, b in zip(held, before, strict=True))


@pytest.mark.parametrize("sequences", [10, 60])
def test_a_prefix_of_many_sequences_is_one_product_beside_their_own_tails(sequences, monkeypatch):
    if kernels._unavailable("cpu")["native"]:
        pytest.skip("the C++ kernels are not there")
    monkeypatch.setenv("FARSPAN_KERNELS", "native")
    backend.cache_clear()
    asked = []
    real = attend_module.__globals__["partial_attention"]

    def noting(query, *rest, **more):
        asked.append(query.shape[2])
        return real(query, *rest, **more)

    monkeypatch.setitem(attend_module.__globals__, "partial_attention", noting)
    world = World(1)
    base = LayerCache(0)
    world.sealed(base, 50)
    world.feed(base, 3)
    forks = [base.fork() for _ in range(sequences)]
    for fork in forks:
        world.feed(fork, 1)
    rows = packed(*((fork, 1) for fork in forks))
    query = world.draw(H * G, sequences, D)
    torch.testing.assert_close(attend(query, rows, SCALING).double(), dense(query, rows), atol=2e-5, rtol=2e-5)
    assert asked == ([sequences] if sequences * G > kernels.FEW_ROWS else []), "few queries stay with the kernels"
