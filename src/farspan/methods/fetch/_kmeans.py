"""Clusters of like keys, by k-means under cosine similarity."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

ROWS = 4096  # keys compared with all centroids at a time


class Clusters(NamedTuple):
    """`centroids` [h, C, D], means of their members; `order` [h, N] int32, members cluster by cluster; `starts`
    [h, C + 1] int32, where each cluster's begin. A cluster may be empty, and its centroid is then of no account.
    """

    centroids: Tensor
    order: Tensor
    starts: Tensor


def clusters(keys: Tensor, many: int, iterations: int) -> Clusters:
    """keys [h, N, D] -> `many` clusters of each head. Starts from keys at equal distances, so there is no chance in it.

    Each of the `iterations` takes N · C products per head.
    """
    parts = [_of_head(head.float(), many, iterations) for head in keys]
    centroids, order, starts = (torch.stack(column) for column in zip(*parts, strict=True))
    return Clusters(centroids.to(keys.dtype), order, starts)


def _of_head(keys: Tensor, many: int, iterations: int) -> tuple[Tensor, Tensor, Tensor]:
    unit = normalize(keys, dim=-1)
    centroids = keys[torch.arange(many) * keys.shape[0] // many]
    nearest = _nearest(unit, centroids)
    for _ in range(iterations):
        centroids = _means(keys, nearest, centroids)
        before, nearest = nearest, _nearest(unit, centroids)
        if torch.equal(nearest, before):
            break
    order = nearest.argsort(stable=True)
    starts = torch.cat([nearest.new_zeros(1), torch.bincount(nearest, minlength=many).cumsum(0)])
    return _means(keys, nearest, centroids), order.int(), starts.int()


def _nearest(unit: Tensor, centroids: Tensor) -> Tensor:
    """unit [N, D] -> [N]: the centroid of highest cosine similarity."""
    directions = normalize(centroids, dim=-1).T
    return torch.cat([(rows @ directions).argmax(-1) for rows in unit.split(ROWS)])


def _means(keys: Tensor, nearest: Tensor, centroids: Tensor) -> Tensor:
    """The means of members; what has none stays where it is."""
    counts = torch.bincount(nearest, minlength=centroids.shape[0])[:, None]
    sums = torch.zeros_like(centroids).index_add_(0, nearest, keys)
    return torch.where(counts > 0, sums / counts.clamp_min(1), centroids)


def runs(order: Tensor, starts: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """order [N] and starts [C + 1] of one head with its clusters in another order: `wanted` [C]."""
    sizes = starts.diff()[wanted]
    rearranged = torch.cat([order[starts[c] : starts[c + 1]] for c in wanted.tolist()])
    return rearranged, torch.cat([starts.new_zeros(1), sizes.cumsum(0).to(starts.dtype)])
