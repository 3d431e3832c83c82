"""Pieces that were read apart are weighed together before they meet the rest: a naive twin, and examples by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from farspan.attention import Rows, attend
from farspan.attention.scaling import Scaling
from farspan.cache import DenseBlock, Extent, LayerCache
from farspan.cache.pieces import Pieces
from farspan.methods.parallel.ape import Ape
from farspan.methods.parallel.concat import Concat
from farspan.methods.parallel.sinks import Sinks
from farspan.methods.store.int8 import Int8


def layer_of(keys: list[Tensor], values: list[Tensor], positions: list[Tensor], cut: int, new: int) -> LayerCache:
    """A layer whose head h holds keys[h] of tokens positions[h]; the last `new` lie in the tail, and extents are
    cut after `cut` entries of every head.
    """
    layer = LayerCache(0)
    total = int(positions[0][-1]) + 1
    sealed = [
        (k[: len(k) - new], v[: len(v) - new], p[: len(p) - new])
        for k, v, p in zip(keys, values, positions, strict=True)
    ]
    for run in (slice(0, cut), slice(cut, None)):
        parts = [tuple(column[run] for column in head) for head in sealed]
        if any(len(k) for k, _, _ in parts):
            offsets = (0, *torch.tensor([len(k) for k, _, _ in parts]).cumsum(0).tolist())
            k, v, p = (torch.cat(column) for column in zip(*parts, strict=True))
            layer.extents += (Extent(DenseBlock(k, v), p.int(), tuple(offsets), shared=False),)
    tails = torch.stack([k[len(k) - new :] for k in keys]), torch.stack([v[len(v) - new :] for v in values])
    layer.tail.append(*tails, total - new)
    return layer


def naive(query: Tensor, keys: list[Tensor], values: list[Tensor], positions: list[Tensor], rule: Pieces) -> Tensor:
    """Entry by entry: query [Hq, T, D], the last T tokens -> [T, Hq, Dv]."""
    group, tokens, out = query.shape[0] // len(keys), query.shape[1], []
    for time in range(tokens):
        heads, votes = [], [0.0] * len(rule.ranges)
        for head in range(query.shape[0]):
            k, v, p = (column[head // group] for column in (keys, values, positions))
            seen = p <= p[-1] - (tokens - 1 - time)
            scores = (k[seen].double() @ query[head, time].double()).tolist()
            numbers = [next((i for i, (a, b) in enumerate(rule.ranges) if a <= t < b), None) for t in p[seen].tolist()]
            amounts = dict.fromkeys([*range(len(rule.ranges)), None], 0.0)
            for score, number in zip(scores, numbers, strict=True):
                amounts[number] += math.exp(score / (1 if number is None else rule.temperature))
            for number in range(len(votes)):
                votes[number] += amounts[number] / sum(amounts.values())
            heads.append((scores, numbers, amounts, v[seen]))
        best = sorted(range(len(votes)), key=lambda i: -votes[i])[: rule.top or len(rule.ranges)]
        for scores, numbers, amounts, v in heads:
            total = sum(amounts[i] for i in best)
            weights = []
            for score, number in zip(scores, numbers, strict=True):
                if number is None:
                    weights.append(math.exp(score))
                elif number in best:
                    power = total ** (rule.scale * rule.temperature)
                    weights.append(math.exp(score / rule.temperature) / total * power)
                else:
                    weights.append(0.0)
            share = torch.tensor(weights, dtype=torch.float64) / sum(weights)
            out.append(share @ v.double())
    return torch.stack(out).unflatten(0, (tokens, -1))


@pytest.mark.usefixtures("poisoned")
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    head=st.integers(0, 5),
    after=st.integers(0, 4),
    new=st.integers(1, 4),
    cut=st.integers(0, 20),
    temperature=st.sampled_from([0.5, 1.0, 1.7]),
    scale=st.sampled_from([0.6, 1.0, 1.2]),
    top=st.integers(0, 3),
    dropped=st.integers(0, 3),
    seed=st.integers(0, 5),
)
def test_whatever_the_pieces_heads_and_extents(
    sizes: list[int], head: int, after: int, new: int, cut: int, temperature: float, scale: float, top: int,
    dropped: int, seed: int,
) -> None:  # fmt: skip
    g = torch.Generator().manual_seed(seed)
    edges = torch.tensor([head, *sizes]).cumsum(0).tolist()
    rule = Pieces(tuple(itertools.pairwise(edges)), temperature, scale, top)
    total = edges[-1] + after + new
    old = total - new
    kept = [torch.randperm(old, generator=g)[: max(old - dropped * h, 1)].sort().values for h in range(2)]
    positions = [torch.cat([its, torch.arange(old, total)]) for its in kept]
    keys, values = ([torch.randn(len(p), 8, generator=g) for p in positions] for _ in range(2))
    query = torch.randn(4, new, 8, generator=g)
    layer = layer_of(keys, values, positions, min(cut, *(len(p) - new for p in positions)), new)
    got = attend(query, [Rows(layer, 0, new, pieces=rule)], 1.0)
    assert torch.allclose(got.double(), naive(query, keys, values, positions, rule), atol=1e-5)


def one_dimension(scores: list[float], values: list[float], rule: Pieces) -> float:
    """One head of size 1, whose query is 1: keys are scores. The last entry is the query's own."""
    keys, vals = (torch.tensor(x)[:, None].float() for x in (scores, values))
    layer = layer_of([keys], [vals], [torch.arange(len(scores))], 0, 1)
    return attend(torch.ones(1, 1, 1), [Rows(layer, 0, 1, pieces=rule)], 1.0).item()


def test_ape_sharpens_within_pieces_and_then_shrinks_what_they_amount_to() -> None:
    """Scores 0 (own) | ln 2, ln 4 | ln 2, at temperature 1/2: squares 4, 16, 4 sum to 24; to the power of S·T = 1/4
    that is 24^(1/4) = 2.2134 against 1 of the query's own entry. `concat`, which weighs them 2, 4, 2 against 1,
    differs.
    """
    scores, values = [math.log(2), math.log(4), math.log(2), 0.0], [1.0, 0.0, 0.0, 0.0]
    ranges = [(0, 2), (2, 3)]
    rule = Ape(temperature=0.5, scale=0.5).pieces(ranges)
    context = 24**0.25
    assert one_dimension(scores, values, rule) == pytest.approx(context / (context + 1) * 4 / 24, abs=1e-6)
    plain = Concat().pieces(ranges)
    assert plain.plain and one_dimension(scores, values, plain) == pytest.approx(2 / 9, abs=1e-6)
    assert Ape(temperature=1, scale=1).pieces(ranges).plain


def test_a_piece_is_selected_by_all_that_it_gets_not_by_its_best_entry() -> None:
    """Piece 0 has the best entry, e^1.2 = 3.3; piece 1 has three of e^0.5, 4.9 together: that one is attended to."""
    scores = [1.2, 0.5, 0.5, 0.5, 0.0]
    rule = Sinks(top=1).pieces([(0, 1), (1, 4)])
    three = 3 * math.exp(0.5)
    assert one_dimension(scores, [0.0, 1.0, 1.0, 1.0, 0.0], rule) == pytest.approx(three / (three + 1), abs=1e-6)
    assert one_dimension(scores, [1.0, 0.0, 0.0, 0.0, 0.0], rule) == 0.0


def test_heads_choose_pieces_together() -> None:
    """Two heads of a group, one key for each of two pieces, and a query's own, which scores 0.

    Query (1, 0) gives the pieces e^0.5 and e^0.4 against 1: shares 0.40 and 0.36. Query (0, 1) gives e^0 and e^2: 0.11
    and 0.79. Together 0.51 and 1.15: both see the second piece, where the first head by itself would see the first.
    """
    keys, values = torch.tensor([[0.5, 0.0], [0.4, 2.0], [0.0, 0.0]]), torch.tensor([[1.0], [2.0], [0.0]])
    layer = layer_of([keys], [values], [torch.arange(3)], 0, 1)
    rule = Sinks(top=1).pieces([(0, 1), (1, 2)])
    got = attend(torch.eye(2)[:, None], [Rows(layer, 0, 1, pieces=rule)], 1.0)[0, :, 0]
    expected = [2 * math.exp(score) / (math.exp(score) + 1) for score in (0.4, 2.0)]
    assert torch.allclose(got, torch.tensor(expected), atol=1e-6)


def test_packed_pieces_are_weighed_as_they_are_unpacked() -> None:
    g = torch.Generator().manual_seed(0)
    keys, values = ([torch.randn(70, 16, generator=g) for _ in range(2)] for _ in range(2))
    layer = layer_of(keys, values, [torch.arange(70)] * 2, 30, 3)
    packed = [Int8().seal(extent) for extent in layer.extents]
    twin_keys, twin_values = ([x.clone() for x in its] for its in (keys, values))
    for extent in packed:
        k, v, p = extent.entries()
        for head in range(2):
            run = slice(extent.offsets[head], extent.offsets[head + 1])
            twin_keys[head][p[run].long()], twin_values[head][p[run].long()] = k[run], v[run]
    layer.extents = tuple(packed)
    rule, query = Pieces(((5, 30), (30, 60)), 0.7, 0.9), torch.randn(4, 3, 16, generator=g)
    got = attend(query, [Rows(layer, 0, 3, pieces=rule)], 1.0)
    assert torch.allclose(got.double(), naive(query, twin_keys, twin_values, [torch.arange(70)] * 2, rule), atol=1e-4)


def test_a_sequence_that_weighs_goes_its_way_beside_one_that_does_not() -> None:
    g = torch.Generator().manual_seed(0)
    keys, values = ([torch.randn(20, 8, generator=g) for _ in range(2)] for _ in range(2))
    layers = [layer_of(keys, values, [torch.arange(20)] * 2, 9, new) for new in (2, 3)]
    rule, query = Pieces(((2, 8), (8, 15)), 0.5), torch.randn(4, 5, 8, generator=g)
    together = attend(query, [Rows(layers[0], 0, 2, pieces=rule), Rows(layers[1], 2, 3)], 1.0)
    assert torch.equal(together[:2], attend(query[:, :2], [Rows(layers[0], 0, 2, pieces=rule)], 1.0))
    assert torch.equal(together[2:], attend(query[:, 2:], [Rows(layers[1], 0, 3)], 1.0))


def test_capped_scores_are_capped_before_they_are_sharpened_and_sinks_take_weight_once() -> None:
    """Scores 2 | 1, 3 capped at 2: 2·tanh(score / 2), then divided by 1/2; a sink with logit 0.5 beside all of them."""
    keys, values = torch.tensor([1.0, 3.0, 2.0])[:, None], torch.tensor([1.0, 0.0, 0.0])[:, None]
    layer = layer_of([keys], [values], [torch.arange(3)], 0, 1)
    rule = Pieces(((0, 2),), temperature=0.5, scale=0.8)
    one, two, own = (2 * math.tanh(score / 2) for score in (1, 3, 2))
    together = math.exp(one / 0.5) + math.exp(two / 0.5)
    amount = together ** (0.8 * 0.5)
    wanted = math.exp(one / 0.5) / together * amount / (amount + math.exp(own) + math.exp(0.5))
    scaling = Scaling(1.0, softcap=2.0, sinks=torch.tensor([0.5]))
    got = attend(torch.ones(1, 1, 1), [Rows(layer, 0, 1, pieces=rule)], scaling)
    assert got.item() == pytest.approx(wanted, abs=1e-5)
