"""Attention by pairwise positions, against the paper's table of relative positions, pair by pair."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from farspan.attention import Rows
from farspan.attention.pairs import Pairs, attend_pairs
from farspan.cache import DenseBlock, Extent, LayerCache

HEADS, GROUP, SIZE = 2, 2, 8
FREQUENCIES = 0.5 ** torch.arange(SIZE // 2)


def turned(states: Tensor, moves: Tensor) -> Tensor:
    """[H, N, D] -> turned on by `moves` [N] positions: halves are real and imaginary parts."""
    numbers = torch.complex(*(half.double() for half in states.chunk(2, -1)))
    numbers = numbers * torch.polar(torch.tensor(1.0).double(), moves[:, None].double() * FREQUENCIES)
    return torch.cat([numbers.real, numbers.imag], -1).to(states.dtype)


def relative(q: int, k: int, group: int, window: int) -> int:
    """The paper's figure 3, in words: near as it is, far in groups, shifted so that the two meet."""
    return q - k if q - k < window else q // group + window - window // group - k // group


def naive(
    query: Tensor, keys: list[Tensor], values: list[Tensor], held: list[list[int]], first: int, p: Pairs
) -> Tensor:
    """Unrotated query [Hq, T, D]; keys and values per head [n, D] of positions `held` -> [T, Hq, Dv]."""
    out = torch.zeros(query.shape[1], query.shape[0], SIZE)
    for h in range(query.shape[0]):
        for t in range(query.shape[1]):
            q, scores, seen = first + t, [], []
            for n, k in enumerate(held[h // GROUP]):
                if k <= q:
                    move = torch.tensor([relative(q, k, p.group, p.window)])
                    scores.append(turned(query[h : h + 1, t : t + 1], move)[0, 0] @ keys[h // GROUP][n] * 0.3)
                    seen.append(n)
            weights = torch.stack(scores).softmax(0)
            out[t, h] = weights @ values[h // GROUP][seen]
    return out


def cache_of(keys: list[Tensor], values: list[Tensor], held: list[list[int]], new: int) -> LayerCache:
    """Entries before the last `new` lie in two extents (a ragged one where heads hold unequal tokens), the rest in the
    tail, all turned to where they stand.
    """
    cache = LayerCache(0)
    placed = [turned(k[None], torch.tensor(p))[0] for k, p in zip(keys, held, strict=True)]
    ends = [len(p) - new for p in held]
    if max(ends):
        offsets = [0]
        for end in ends:
            offsets.append(offsets[-1] + end)
        block = DenseBlock(
            torch.cat([k[:end] for k, end in zip(placed, ends, strict=True)]),
            torch.cat([v[:end] for v, end in zip(values, ends, strict=True)]),
        )
        at = torch.tensor([q for p, end in zip(held, ends, strict=True) for q in p[:end]], dtype=torch.int32)
        cache.extents = (Extent(block, at, tuple(offsets), shared=False),)
    tails = [torch.stack([x[end:] for x, end in zip(xs, ends, strict=True)]) for xs in (placed, values)]
    cache.tail.append(*tails, held[0][ends[0]], capacity=new + 7)
    return cache


@pytest.mark.usefixtures("poisoned")
@given(
    new=st.integers(1, 9),
    old=st.integers(0, 30),
    group=st.integers(2, 6),
    window=st.integers(1, 24),
    ragged=st.booleans(),
    seed=st.integers(0, 99),
)
def test_it_is_the_papers_table_of_relative_positions(
    new: int, old: int, group: int, window: int, ragged: bool, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    newest = list(range(old, old + new))
    held = [list(range(old + new)) for _ in range(HEADS)]
    if ragged:
        held = [[*(k for k in range(old) if torch.rand(1, generator=g) < 0.6), *newest] for _ in range(HEADS)]
    query = torch.randn(HEADS * GROUP, new, SIZE, generator=g)
    keys, values = ([torch.randn(len(p), SIZE, generator=g) for p in held] for _ in range(2))
    pairs = Pairs(group, window, lambda states, moves, layer: turned(states, moves))
    cache = cache_of(keys, values, held, new)
    got = attend_pairs(turned(query, torch.tensor(newest)), [Rows(cache, 0, new)], 0.3, pairs)
    assert torch.allclose(got, naive(query, keys, values, held, old, pairs), atol=1e-5)


def test_distances_grow_one_by_one_up_to_the_window_and_group_by_group_beyond() -> None:
    """Of the query at 24, with a window of 8 and groups of 4: floor(24 / 4) + 8 - floor(8 / 4) = 12 less the group."""
    assert [relative(24, k, 4, 8) for k in (24, 23, 17)] == [0, 1, 7]
    assert [relative(24, k, 4, 8) for k in (16, 15, 12, 11, 8, 7, 0)] == [8, 9, 9, 10, 10, 11, 12]
    pairs = Pairs(4, 8, lambda states, moves, layer: states)
    at = torch.tensor([16, 15, 12, 11, 8, 7, 0])
    seen_from = 24 + pairs.query_moves(torch.tensor([24]))
    assert (seen_from - (at + pairs.key_moves(at))).tolist() == [8, 9, 9, 10, 10, 11, 12]


def test_rows_of_a_batch_keep_their_own_positions() -> None:
    g = torch.Generator().manual_seed(5)
    pairs = Pairs(3, 5, lambda states, moves, layer: turned(states, moves))
    rows, parts, alone, start = [], [], [], 0
    for old, new in ((20, 3), (0, 6), (11, 1)):
        held = [list(range(old + new)) for _ in range(HEADS)]
        query = turned(torch.randn(HEADS * GROUP, new, SIZE, generator=g), torch.arange(old, old + new))
        keys, values = ([torch.randn(old + new, SIZE, generator=g) for _ in held] for _ in range(2))
        cache = cache_of(keys, values, held, new)
        alone.append(attend_pairs(query, [Rows(cache, 0, new)], 0.3, pairs))
        rows.append(Rows(cache, start, new))
        parts.append(query)
        start += new
    assert torch.allclose(attend_pairs(torch.cat(parts, 1), rows, 0.3, pairs), torch.cat(alone), atol=1e-6)
