"""Attention along columns and diagonals is that of the whole map, summed by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from farspan.cache import LayerCache
from farspan.signals import line_attention
from farspan.signals.lines import add_diagonals
from tests.attention.sights import LAYERS, layer_of

D, SCALING = 16, 0.4


def by_hand(layer: LayerCache, queries: torch.Tensor, first: int) -> tuple[torch.Tensor, torch.Tensor]:
    heads, count = layer.tail.keys.shape[0], queries.shape[1]
    length = first + count
    columns, diagonals = torch.zeros(heads, length), torch.zeros(heads, length)
    asked = queries.unflatten(0, (heads, -1))
    for h in range(heads):
        spans = [(e.block.unpack(*e.offsets[h : h + 2])[0], e.head_positions(h)) for e in layer.extents]
        spans.append((layer.tail.keys[h], layer.tail.positions()))
        keys, at = (torch.cat(column) for column in zip(*spans, strict=True))
        for g in range(asked.shape[1]):
            for w in range(count):
                seen = at <= first + w
                shares = (keys[seen] @ asked[h, g, w] * SCALING).softmax(0) / asked.shape[1]
                for share, k in zip(shares, at[seen].tolist(), strict=True):
                    columns[h, k] += share
                    diagonals[h, first + w - k] += share
    return columns, diagonals


@pytest.mark.parametrize("held", LAYERS)
@pytest.mark.usefixtures("poisoned")
def test_sums_are_those_of_the_whole_map(held):
    layer = layer_of(4, 2, LAYERS[held], 30)
    first = layer.tail.last - 6
    queries = torch.randn(6, 7, D, generator=torch.Generator().manual_seed(0))
    got = line_attention(layer, queries, torch.arange(first, first + 7, dtype=torch.int32), SCALING)
    for mine, truth in zip(got, by_hand(layer, queries, first), strict=True):
        torch.testing.assert_close(mine, truth, atol=1e-5, rtol=1e-5)


def test_keys_after_the_last_query_get_nothing():
    """A probe's entries stand behind the text's when its queries are asked."""
    layer = layer_of(4, 2, [], 30)
    queries = torch.randn(4, 3, D, generator=torch.Generator().manual_seed(0))
    columns, diagonals = line_attention(layer, queries, torch.arange(20, 23, dtype=torch.int32), SCALING)
    assert columns.shape == diagonals.shape == (2, 23)
    torch.testing.assert_close(columns.sum(1), torch.full((2,), 3.0))
    torch.testing.assert_close(diagonals.sum(1), torch.full((2,), 3.0))


@settings(max_examples=50)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 12), st.integers(0, 15), st.integers(0, 20))
def test_keys_in_a_row_are_summed_as_scattered_ones(heads, window, count, first, ahead):
    """The sheared sum and the scattered one; a third head, elsewhere, sends all of them the slow way."""
    g = torch.Generator().manual_seed(window * 100 + count)
    positions = torch.arange(first + ahead, first + ahead + window)
    keys = torch.arange(first, first + count).expand(heads, -1)
    shares = torch.rand(heads, window, count, generator=g) * (keys[:, None] <= positions[:, None])
    fast, slow = torch.zeros(heads, 99), torch.zeros(heads + 1, 99)
    add_diagonals(fast, shares, positions, keys)
    other = torch.cat([keys, keys[:1] + 1])
    add_diagonals(slow, torch.cat([shares, 0 * shares[:1]]), positions, other)
    torch.testing.assert_close(fast, slow[:heads])
