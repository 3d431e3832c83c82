"""Attention summed along the lines of its map: columns (one key, whoever asks) and diagonals (one distance)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from farspan.attention.lse import held_lse, held_pieces
from farspan.attention.scaling import scored
from farspan.cache import LayerCache
from farspan.cache.extent import Piece

BLOCK = 4096  # entries at a time


def attention_blocks(
    layer: LayerCache, queries: Tensor, positions: Tensor, scaling: float
) -> Iterator[tuple[Piece, Tensor]]:
    """queries [Hq, W, D] at `positions` [W] over all that a layer holds -> pieces with what their keys get, [h, W, n]
    float32: mean over the query heads of a group, 0 after the query. A query's shares sum to 1 over all pieces.
    """
    lse = held_lse(layer, queries, positions, scaling)
    heads = layer.tail.keys.shape[0]
    grouped, lse = queries.float().unflatten(0, (heads, -1)), lse.unflatten(0, (heads, -1))
    for piece in held_pieces(layer):
        scores = scored(torch.einsum("hgwd,hnd->hgwn", grouped[piece.heads], piece.keys.float()), scaling)
        later = piece.positions[:, None] > positions[None, :, None]
        shares = (scores - lse[piece.heads][..., None]).exp_().mean(1)
        yield piece, shares.masked_fill_(later, 0.0)


def line_attention(layer: LayerCache, queries: Tensor, positions: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    """queries [Hq, W, D] at consecutive `positions` [W] -> columns [Hk, P] and diagonals [Hk, P] float32, P the last
    position plus one: the attention that the key at each position gets, and that goes to each distance.

    Source: the estimate of MInference's vertical-slash heads (Jiang et al. 2024, section 3.2).
    """
    heads, length = layer.tail.keys.shape[0], int(positions[-1]) + 1
    columns = torch.zeros(heads, length, device=queries.device)
    diagonals = torch.zeros_like(columns)
    for piece, shares in attention_blocks(layer, queries, positions, scaling):
        at = piece.positions.expand(shares.shape[0], -1).long()
        inside = at < length
        columns[piece.heads].scatter_add_(1, at.clamp(max=length - 1), shares.sum(1) * inside)
        add_diagonals(diagonals[piece.heads], shares, positions, at)
    return columns, diagonals


def add_diagonals(out: Tensor, shares: Tensor, positions: Tensor, keys: Tensor) -> None:
    """Add shares [h, W, n], 0 after the query, of queries at consecutive positions [W] to keys at positions [h, n], to
    out [h, P] by distance; longer ones than P are left out.
    """
    first, last = int(keys[0, 0]), int(keys[0, -1])
    _, window, count = shares.shape
    if last - first + 1 == count and bool((keys == keys[:1]).all()):
        sums = _sheared(shares).sum(1)  # distances ascend from that of the newest key to the first query
        distances = torch.arange(count + window - 1, device=keys.device) + int(positions[0]) - last
        real = (distances >= 0) & (distances < out.shape[1])
        out[:, distances[real]] += sums[:, real]
        return
    distances = positions.long()[:, None] - keys[:, None]
    real = (distances >= 0) & (distances < out.shape[1])
    out.scatter_add_(1, distances.clamp(0, out.shape[1] - 1).flatten(1), (shares * real).flatten(1))


def _sheared(shares: Tensor) -> Tensor:
    """[h, W, n] of consecutive queries and keys -> [h, W, n + W - 1], keys from new to old and each query's row moved
    on by one: a distance is a column.
    """
    heads, window, count = shares.shape
    wide = shares.new_zeros(heads, window, count + window)
    wide[:, :, :count] = shares.flip(-1)
    return wide.flatten(1)[:, : window * (count + window - 1)].unflatten(1, (window, -1))
