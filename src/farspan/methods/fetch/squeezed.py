"""Squeezed Attention: clusters of like keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from farspan.errors import PlanError
from farspan.methods.fetch._choosing import dots, split
from farspan.methods.fetch._kmeans import clusters, runs
from farspan.methods.fetch.base import Asked, Candidates, Fetch, Sealed, Selection
from farspan.registry import Paper


@dataclass(frozen=True, kw_only=True)
class Squeezed(Fetch):
    """Read the clusters of keys whose centroids expect the most attention, wherever in the text their keys stand.

    Keys of an extent are clustered once, per head, by k-means under cosine similarity: `share` of them as many
    clusters. A query expects of cluster i the share exp(q·c_i) / Σ_j n_j exp(q·c_j) for each key in it; the best
    clusters are read until the budget is full, the last one as far as it fits. Query heads of a group, and queries
    that share a selection, add up. With `coarse` above 0 the centroids are clustered again, into that share of the
    keys, and only centroids of the best coarse clusters are looked at: those that hold `breadth` times the budget.

    Source: Hooper et al. 2024, "Squeezed Attention", sections 4.1 to 4.3; clusters for 5% of the keys, and 1% on the
    coarse level, are theirs. Their threshold, which fixes what is read on average, is a budget for every step here.
    """

    paper: ClassVar[Paper | None] = Paper("Squeezed Attention", arxiv="2411.09688", id=153)

    share: float = 0.05
    coarse: float = 0.0
    breadth: int = 4
    iterations: int = 10

    def check(self) -> None:
        """Shares of the keys, the coarse one below the fine one."""
        if not 0 < self.share <= 1:
            raise PlanError(f"share={self.share} is no share of the keys; give above 0, up to 1")
        if not 0 <= self.coarse < self.share:
            raise PlanError(f"coarse={self.coarse} leaves no coarser level; give 0 (none) to below share={self.share}")
        for name in ("breadth", "iterations"):
            if getattr(self, name) < 1:
                raise PlanError(f"{name}={getattr(self, name)} is none; give 1 or more")
        super().check()

    def index(self, sealed: Sealed) -> dict[str, Tensor]:
        """-> `centroids` [h, C, D]; `order` [h, N] int32, entries cluster by cluster; `starts` [h, C + 1] int32; and of
        the coarse level `above` [h, B, D] and `blocks` [h, B + 1] int32, which centroids belong to which.
        """
        entries = sealed.keys.shape[1]
        fine = clusters(sealed.keys, self._many(entries, self.share), self.iterations)
        if not self.coarse:
            return {"centroids": fine.centroids, "order": fine.order, "starts": fine.starts}
        upper = clusters(
            fine.centroids, min(self._many(entries, self.coarse), fine.centroids.shape[1]), self.iterations
        )
        sorted_by = upper.order.long()
        centroids = fine.centroids.gather(1, sorted_by[..., None].expand_as(fine.centroids))
        order, starts = zip(*(runs(fine.order[h], fine.starts[h], its) for h, its in enumerate(sorted_by)), strict=True)
        return {
            "centroids": centroids,
            "order": torch.stack(order),
            "starts": torch.stack(starts),
            "above": upper.centroids,
            "blocks": upper.starts,
        }

    def index_bytes(self, count: int, heads: int, head_size: int, dtype: torch.dtype) -> int:
        """Centroids, and a number for every key and cluster."""
        levels = [self._many(count, share) for share in (self.share, self.coarse) if share]
        return heads * (count * 4 + sum(many * head_size * dtype.itemsize + (many + 1) * 4 for many in levels))

    @staticmethod
    def _many(entries: int, share: float) -> int:
        return max(1, int(entries * share + 0.999999))

    def select(self, asked: Asked, held: Sequence[Candidates], k: int) -> list[Selection]:
        """The keys of the best clusters."""
        edges = [0]
        for each in held:
            edges.append(edges[-1] + each.entries)
        heads = range(asked.queries.shape[0])
        scores = _expected(asked, held, self._looked_at(asked, held, k) if self.coarse else None)
        return split([_entries([its[h] for its in scores], held, h, edges, k) for h in heads], edges)

    def _looked_at(self, asked: Asked, held: Sequence[Candidates], k: int) -> list[Tensor]:
        """-> for each extent [h, C] bool: centroids of the best coarse clusters, until they hold `breadth` · k keys."""
        scores = _shares(asked, [each.index["above"] for each in held], [_blocks_sizes(each) for each in held])
        sizes = torch.cat([_blocks_sizes(each) for each in held], -1)
        ranked = torch.cat(scores, -1).argsort(-1, descending=True)
        before = sizes.gather(-1, ranked).cumsum(-1) - sizes.gather(-1, ranked)
        taken = torch.zeros_like(sizes, dtype=torch.bool).scatter(-1, ranked, before < self.breadth * k)
        found = []
        for each, its in zip(held, taken.split([s.shape[-1] for s in scores], -1), strict=True):
            many = each.index["blocks"].diff(dim=-1).long()
            found.append(torch.stack([t.repeat_interleave(n) for t, n in zip(its, many, strict=True)]))
        return found


def _sizes(held: Candidates) -> Tensor:
    """[h, C]: how many keys each cluster has."""
    return held.index["starts"].diff(dim=-1)


def _blocks_sizes(held: Candidates) -> Tensor:
    """[h, B]: how many keys each coarse cluster has."""
    ends = held.index["starts"].gather(-1, held.index["blocks"].long())
    return ends.diff(dim=-1)


def _expected(asked: Asked, held: Sequence[Candidates], looked_at: list[Tensor] | None) -> list[Tensor]:
    """-> for each extent [h, C]: expected attention of a key of each cluster; -inf for empty or unseen ones."""
    sizes = [_sizes(each) for each in held]
    if looked_at is not None:
        sizes = [size * seen for size, seen in zip(sizes, looked_at, strict=True)]
    return _shares(asked, [each.index["centroids"] for each in held], sizes)


def _shares(asked: Asked, centroids: Sequence[Tensor], sizes: Sequence[Tensor]) -> list[Tensor]:
    """exp(q·c_i) / Σ_j n_j exp(q·c_j), summed over queries and heads of the group; -inf where n_i is 0."""
    counted = torch.cat(list(sizes), -1)[:, None, None].float()
    scores = torch.cat([dots(asked.queries, its) for its in centroids], -1) * asked.scaling
    shares = (scores - (scores + counted.log()).logsumexp(-1, keepdim=True)).exp().sum((1, 2))
    shares = shares.masked_fill(counted[:, 0, 0] == 0, -torch.inf)
    return list(shares.split([its.shape[1] for its in centroids], -1))


def _entries(scores: Sequence[Tensor], held: Sequence[Candidates], head: int, edges: Sequence[int], k: int) -> Tensor:
    """scores [C] of each extent -> [n] ascending: at most k candidates of one head, extents laid end to end."""
    owner = torch.cat([torch.full((its.numel(),), e) for e, its in enumerate(scores)])
    number = torch.cat([torch.arange(its.numel()) for its in scores])
    every = torch.cat(list(scores))
    left, parts = k, []
    for c in every.argsort(descending=True).tolist():
        if left <= 0 or every[c] == -torch.inf:
            break
        e, i = int(owner[c]), int(number[c])
        starts = held[e].index["starts"][head]
        its = held[e].index["order"][head, starts[i] : starts[i + 1]].long()
        its = its[(its >= held[e].first[head]) & (its < held[e].stop[head])][:left]
        parts.append(its + edges[e])
        left -= its.numel()
    return torch.cat(parts).sort().values if parts else torch.empty(0, dtype=torch.int64)
