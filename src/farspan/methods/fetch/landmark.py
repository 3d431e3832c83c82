"""ShadowKV's landmarks: chunks known by their mean key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from farspan.errors import PlanError
from farspan.methods.fetch._blocks import pages, top_pages
from farspan.methods.fetch._choosing import dots
from farspan.methods.fetch.base import Asked, Candidates, Fetch, Sealed, Selection
from farspan.registry import Paper


@dataclass(frozen=True, kw_only=True)
class Landmark(Fetch):
    """Read the chunks whose mean key draws the most attention, after those that no mean stands for.

    A chunk is `chunk` neighbouring entries, its landmark their mean. A head's `outliers` chunks least like their
    landmark (by the lowest cosine similarity of any member) are always read, within the budget; the others by the
    softmax of query and landmark, summed over the query heads of a group. The last chunk of an extent may be short.

    Source: Sun et al. 2024, "ShadowKV", section 4.1 and algorithm 2; chunks of 8 and 48 outliers are theirs. It goes
    with any store; `shadowkv` holds keys in low rank beside.
    """

    paper: ClassVar[Paper | None] = Paper("ShadowKV", arxiv="2410.21465", id=30)

    chunk: int = 8
    outliers: int = 48

    def check(self) -> None:
        """A chunk holds something; outliers are counted from 0."""
        for name, least in (("chunk", 1), ("outliers", 0)):
            if getattr(self, name) < least:
                raise PlanError(f"{name}={getattr(self, name)} is too small; give {least} or more")
        super().check()

    @property
    def least(self) -> int:
        """One chunk."""
        return self.chunk

    def index(self, sealed: Sealed) -> dict[str, Tensor]:
        """-> `landmarks` [h, chunks, D] and `outlier` [h, chunks] bool."""
        keys = pages(sealed.keys.float(), self.chunk, torch.nan)
        landmarks = keys.nanmean(2)
        like = cosine_similarity(keys, landmarks[:, :, None], dim=-1).nan_to_num(2.0).amin(-1)
        worst = like.topk(min(self.outliers, like.shape[1]), dim=-1, largest=False).indices
        outlier = torch.zeros_like(like, dtype=torch.bool).scatter(-1, worst, True)
        return {"landmarks": landmarks.to(sealed.keys.dtype), "outlier": outlier}

    def index_bytes(self, count: int, heads: int, head_size: int, dtype: torch.dtype) -> int:
        """A key and a mark for every chunk."""
        return heads * -(-count // self.chunk) * (head_size * dtype.itemsize + 1)

    def select(self, asked: Asked, held: Sequence[Candidates], k: int) -> list[Selection]:
        """Outliers first, then the chunks with the largest shares."""
        scores = [dots(asked.queries, each.index["landmarks"]) * asked.scaling for each in held]
        shares = torch.cat(scores, -1).softmax(-1).sum((1, 2))
        parts = shares.split([its.shape[-1] for its in scores], -1)
        above = float(asked.queries.shape[1] * asked.queries.shape[2])  # what all shares of a chunk sum to at most
        raised = [its + above * each.index["outlier"] for its, each in zip(parts, held, strict=True)]
        return top_pages(raised, held, self.chunk, k)
