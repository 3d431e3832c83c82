"""Quest: bounds of pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from farspan.errors import PlanError
from farspan.methods.fetch._blocks import pages, top_pages
from farspan.methods.fetch.base import Asked, Candidates, Fetch, Sealed, Selection
from farspan.registry import Paper


@dataclass(frozen=True, kw_only=True)
class Quest(Fetch):
    """Read the pages whose keys could answer best: those with the highest upper bound of any score in them.

    The index holds each channel's least and largest key of every `page` entries; their products with a query bound
    every score of the page. Query heads of a group share pages by the mean of their bounds, and so do queries that
    share a selection. The last page of an extent may be short.

    Source: Tang et al. 2024, "Quest: Query-Aware Sparsity for Efficient Long-Context LLM Inference", section 3.3 and
    algorithm 1; pages of 16 are theirs. Theirs leaves the first two layers dense; here every layer fetches.
    """

    paper: ClassVar[Paper | None] = Paper("Quest", arxiv="2406.10774")

    page: int = 16

    def check(self) -> None:
        """A page holds something, and the budget a page."""
        if self.page < 1:
            raise PlanError(f"page={self.page} holds nothing; give 1 or more")
        super().check()

    @property
    def least(self) -> int:
        """One page."""
        return self.page

    def index(self, sealed: Sealed) -> dict[str, Tensor]:
        """-> `bounds` [h, pages, 2D]: per channel the largest key, then the least."""
        high = pages(sealed.keys, self.page, -torch.inf).amax(2)
        low = pages(sealed.keys, self.page, torch.inf).amin(2)
        return {"bounds": torch.cat([high, low], -1)}

    def index_bytes(self, count: int, heads: int, head_size: int, dtype: torch.dtype) -> int:
        """Two keys for every page."""
        return heads * -(-count // self.page) * 2 * head_size * dtype.itemsize

    def select(self, asked: Asked, held: Sequence[Candidates], k: int) -> list[Selection]:
        """The k // page pages with the highest bounds."""
        rows = asked.queries.to(held[0].index["bounds"].dtype)
        signed = torch.cat([rows.clamp_min(0), rows.clamp_max(0)], -1).sum((1, 2))  # mean and sum rank alike
        scores = [(each.index["bounds"] @ signed[..., None])[..., 0].float() for each in held]
        return top_pages(scores, held, self.page, k)
