"""Window attention: what the last queries pay to each entry, checked against numbers worked out by hand."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from torch import Tensor

from farspan.attention.scaling import Scaling
from farspan.signals import Observation, chunk_attention, window, window_attention


def observe(shares: list[list[list[float]]], *, heads: int = 1, seen: int | None = None, **changes) -> Observation:
    """An observation where query w of query head q attends to entry n in proportion to shares[q][w][n].

    Keys are one-hot, so the logarithms of the shares are the queries; a share on an entry that lies after its query
    must not count.
    """
    logits = torch.tensor(shares).log()  # [Hq, W, N]
    _, window, entries = logits.shape
    seen = entries if seen is None else seen
    at = torch.arange(seen - window, seen, dtype=torch.int32)
    given = {
        "layer": 0,
        "keys": torch.eye(entries).expand(heads, -1, -1),
        "values": torch.zeros(heads, entries, 2),
        "positions": torch.arange(seen - entries, seen, dtype=torch.int32).expand(heads, -1),
        "queries": logits,
        "query_positions": at,
        "scaling": 1.0,
        "token_ids": torch.zeros(seen, dtype=torch.int32),
        "seen": seen,
        "generator": torch.Generator().manual_seed(0),
    }
    return Observation(**(given | changes))


def near(got: Tensor, want: list[list[float]]) -> None:
    torch.testing.assert_close(got, torch.tensor(want))


def test_masses_are_summed_over_queries_and_no_query_sees_what_comes_after_it():
    o = observe([[[1, 2, 1, 900], [1, 1, 1, 5]]])  # the query at position 2 sees 0, 1, 2; the one at 3 all
    near(window_attention(o, 2), [[1 / 4 + 1 / 8, 2 / 4 + 1 / 8, 1 / 4 + 1 / 8, 5 / 8]])


def test_masses_are_averaged_over_the_query_heads_of_a_group():
    o = observe([[[1, 1, 2]], [[3, 1, 4]], [[6, 1, 1]], [[1, 1, 6]]], heads=2)
    near(
        window_attention(o, 1), [[(1 / 4 + 3 / 8) / 2, (1 / 4 + 1 / 8) / 2, 2 / 4], [(6 + 1) / 16, 1 / 8, (1 + 6) / 16]]
    )


def test_only_the_last_queries_count():
    o = observe([[[9, 1, 1, 1], [1, 1, 2, 4]]])
    near(window_attention(o, 1), [[1 / 8, 1 / 8, 2 / 8, 4 / 8]])


def test_a_probe_that_holds_no_entries_sees_all_of_them():
    o = observe([[[1, 3, 4]]], query_positions=torch.tensor([3], dtype=torch.int32), probed=True)
    near(window_attention(o, 1), [[1 / 8, 3 / 8, 4 / 8]])


def test_heads_may_hold_different_tokens():
    positions = torch.tensor([[0, 1, 9], [0, 8, 9]], dtype=torch.int32)
    o = observe([[[1, 1, 2]], [[1, 1, 2]]], heads=2, positions=positions, query_positions=torch.tensor([8]))
    near(window_attention(o, 1), [[1 / 2, 1 / 2, 0], [1 / 2, 1 / 2, 0]])


@pytest.mark.parametrize("window", [1, 5])
def test_every_query_spends_exactly_one(window):
    g = torch.Generator().manual_seed(0)
    o = observe(torch.rand(4, 5, 30, generator=g).tolist(), heads=2)
    o = dataclasses.replace(o, keys=torch.randn(2, 30, 30, generator=g) * 3)
    torch.testing.assert_close(window_attention(o, window).sum(1), torch.full((2,), float(window)))


@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("block", [4, 7, 64])
def test_it_is_the_softmax_whatever_the_blocks(block, softcap, sinks, monkeypatch):
    """Query by query in float64; more queries and entries than fit a block, heads that hold different tokens."""
    monkeypatch.setattr(window, "BLOCK", block)
    monkeypatch.setattr(window, "QUERIES", 5)
    g = torch.Generator().manual_seed(block)
    heads, group, count, entries = 2, 3, 12, 40
    learned = torch.randn(heads * group, generator=g) * 3
    scaling = Scaling(0.7, softcap=softcap, sinks=learned if sinks else None)
    keys, queries = torch.randn(heads, entries, 8, generator=g) * 2, torch.randn(6, count, 8, generator=g) * 2
    positions = torch.stack([torch.randperm(60, generator=g)[:entries].sort().values for _ in range(heads)])
    at = torch.arange(48, 48 + count)
    o = observe([[[1] * entries] * count] * 6, heads=heads, keys=keys, queries=queries, scaling=scaling)
    o = dataclasses.replace(o, positions=positions.int(), query_positions=at.int())
    want = torch.zeros(heads, entries, dtype=torch.float64)
    for h, w in itertools.product(range(heads * group), range(count)):
        scores = (keys[h // group].double() @ queries[h, w].double()) * 0.7
        scores = scores if softcap is None else (scores / softcap).tanh() * softcap
        scores = scores.masked_fill(positions[h // group] > at[w], -torch.inf)
        spent = torch.cat([scores, learned[h : h + 1].double()]) if sinks else scores
        want[h // group] += (scores - spent.logsumexp(0)).exp() / group
    torch.testing.assert_close(chunk_attention(o).double(), want, rtol=1e-5, atol=1e-6)


def test_it_is_computed_once_for_all_who_ask():
    o = observe([[[1, 1, 2], [1, 2, 3]]])
    assert window_attention(o, 2) is window_attention(o, 2)
    assert not torch.equal(window_attention(o, 1), window_attention(o, 2))
