"""What queries' scores sum to over all that a layer holds, without attending."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from farspan.attention.kernels import partial_attention
from farspan.attention.scaling import with_sinks
from farspan.cache import LayerCache
from farspan.cache.extent import UNPACK_ENTRIES, Piece


def held_lse(layer: LayerCache, queries: Tensor, positions: Tensor, scaling: float) -> Tensor:
    """queries [Hq, W, D] at `positions` [W] -> [Hq, W] float32: log-sum-exp of their scores over the entries held at
    their own position and before, and of sinks; -inf where there is none.
    """
    pieces = list(held_pieces(layer))
    heads = layer.extents[0].heads if layer.extents else layer.tail.keys.shape[0]
    grouped = queries.unflatten(0, (heads, -1))
    out = torch.full(grouped.shape[:3], -torch.inf, device=queries.device)
    for piece in pieces:
        visible = piece.positions[:, None] <= positions[None, :, None]
        asked = grouped[piece.heads]
        _, lse = partial_attention(asked, piece.keys, piece.values, scaling, visible.expand(asked.shape[0], -1, -1))
        out[piece.heads] = torch.logaddexp(out[piece.heads], lse)
    return with_sinks(out.flatten(0, 1), scaling)


def held_pieces(layer: LayerCache) -> Iterator[Piece]:
    """All that a layer holds, in pieces short enough that W × n scores are small."""
    for whole in _pieces(layer):
        yield from _cut(whole)


def _pieces(layer: LayerCache) -> Iterator[Piece]:
    for extent in layer.extents:
        yield from extent.pieces()
    tail = layer.tail
    if len(tail):
        yield Piece(slice(0, tail.keys.shape[0]), tail.keys, tail.values, tail.positions()[None])


def _cut(piece: Piece) -> Iterator[Piece]:
    for start in range(0, piece.keys.shape[1], UNPACK_ENTRIES):
        run = slice(start, start + UNPACK_ENTRIES)
        yield Piece(piece.heads, piece.keys[:, run], piece.values[:, run], piece.positions[:, run])
