"""Attention whose positions depend on pairs of tokens: near keys as they stand, far ones with positions in groups.

Relative positions of SelfExtend (Jin et al. 2024): q - k for keys less than `window` back, and for all others
floor(q / group) + window - floor(window / group) - floor(k / group). Each of the two is a rotation of queries and keys
by positions of their own, so a layer is attended twice, over disjoint keys, and merged by log-sum-exp. Keys are cached
as they stand and turned when they are looked at: nothing held, packed or saved is other than without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from farspan.attention.attend import Rows
from farspan.attention.kernels import partial_attention
from farspan.attention.merge import Merger
from farspan.cache import LayerCache
from farspan.cache.extent import Piece


class Pairs(NamedTuple):
    """Which keys are far, and how they are turned: `turn(keys [H, N, D], moves [N], layer)` moves cached keys on."""

    group: int
    window: int
    turn: Callable[[Tensor, Tensor, int], Tensor]

    def key_moves(self, positions: Tensor) -> Tensor:
        """From where far keys stand to their group's position."""
        return positions // self.group - positions

    def query_moves(self, positions: Tensor) -> Tensor:
        """From where queries stand to where far keys are seen from."""
        return self.key_moves(positions) + self.window - self.window // self.group


def attend_pairs(query: Tensor, rows: list[Rows], scaling: float, pairs: Pairs) -> Tensor:
    """As `attend`, of a layer without a window of its own: query [Hq, ΣT, D] -> out [ΣT, Hq, Dv].

    Both kinds of rotation cost time in proportion to the keys at every pass.
    """
    tail = rows[0].cache.tail
    heads, size = tail.keys.shape[0], tail.values.shape[-1]
    merger = Merger(heads, query.shape[0] // heads, query.shape[1], size, query.device)
    for row in rows:
        tokens = slice(row.start, row.start + row.length)
        positions = row.cache.tail.positions()[-row.length :].long()
        near = query[:, tokens]
        far = pairs.turn(near, pairs.query_moves(positions), row.cache.index)
        asked = _Asked(near.unflatten(0, (heads, -1)), far.unflatten(0, (heads, -1)), positions)
        for piece in _pieces(row.cache):
            for out, lse in _attended(asked, piece, scaling, pairs, row.cache.index):
                merger.add(out, lse, piece.heads, tokens)
    return merger.finished(scaling, query.dtype)


class _Asked(NamedTuple):
    """Queries [H, G, T, D] as they stand and as far keys see them, at positions [T]."""

    near: Tensor
    far: Tensor
    positions: Tensor


def _pieces(cache: LayerCache) -> Iterator[Piece]:
    """All that is held, the newest first; heads that hold different tokens one by one, in order of position."""
    tail = cache.tail
    yield Piece(slice(0, tail.keys.shape[0]), tail.keys, tail.values, tail.positions()[None])
    for extent in cache.extents:
        for piece in extent.pieces():
            if piece.positions.shape[0] == 1:
                yield piece
                continue
            for i, positions in enumerate(piece.positions):
                alone = slice(piece.heads.start + i, piece.heads.start + i + 1)
                yield Piece(alone, piece.keys[i : i + 1], piece.values[i : i + 1], positions[None])


def _attended(asked: _Asked, piece: Piece, scaling: float, pairs: Pairs, layer: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Parts of attention to one piece, cut where keys begin to be near, or not yet there, for the first or last query:
    masks are then no larger than new tokens by new tokens.
    """
    near, far, q = asked.near[piece.heads], asked.far[piece.heads], asked.positions
    first, last = int(q[0]), int(q[-1])
    positions = piece.positions[0].long()
    edges = torch.tensor(sorted({first - pairs.window, last - pairs.window, first}), device=positions.device)
    cuts = [0, *torch.searchsorted(positions, edges, right=True).tolist(), positions.numel()]
    for start, stop in pairwise(cuts):
        if start == stop:
            continue
        at = positions[start:stop]
        keys, values = piece.keys[:, start:stop], piece.values[:, start:stop]
        oldest, newest = int(at[0]), int(at[-1])
        if first - newest < pairs.window:
            whole = newest <= first and last - oldest < pairs.window
            seen = None if whole else _between(q, at, 0, pairs.window)
            yield partial_attention(near, keys, values, scaling, seen)
        if last - oldest >= pairs.window:
            whole = first - newest >= pairs.window
            seen = None if whole else _between(q, at, pairs.window, last + 1)
            turned = pairs.turn(keys, pairs.key_moves(at), layer)
            yield partial_attention(far, turned, values, scaling, seen)


def _between(q: Tensor, at: Tensor, low: int, high: int) -> Tensor:
    """-> [T, n] bool: which keys are `low` back or more, and less than `high`."""
    back = q[:, None] - at[None]
    return (back >= low) & (back < high)
