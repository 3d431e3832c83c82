"""InfLLM: blocks with representative tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from farspan.errors import PlanError
from farspan.methods.fetch._blocks import jointly, pages, top_pages
from farspan.methods.fetch.base import Asked, Candidates, Fetch, Sealed, Selection
from farspan.registry import Paper


@dataclass(frozen=True, kw_only=True)
class Infllm(Fetch):
    """Read the blocks whose representative tokens answer the mean of the queries best.

    A block of `block` entries is known by the mean key of its `representatives`: the entries that the next `recent`
    tokens asked for most. All heads of a layer read the same blocks, by the sum of their scores (where heads hold
    different tokens, each chooses for itself). The last block of an extent may be short.

    Source: Xiao et al. 2024, "InfLLM", section 3.2 (equation 1 for representatives) and the authors' code: 128 sinks,
    4,096 recent tokens, blocks of 128 with 4 representatives, one look-up for 512 tokens. Scores are noted per
    key-value head, and positions stay the context's own where theirs are clamped.
    """

    paper: ClassVar[Paper | None] = Paper("InfLLM", arxiv="2402.04617", id=296)
    notes: ClassVar[tuple[str, ...]] = ("asked",)

    sinks: int = 128
    recent: int = 4096
    together: int = 512
    read: bool = True
    block: int = 128
    representatives: int = 4

    def check(self) -> None:
        """A block holds something, and the budget a block."""
        for name in ("block", "representatives"):
            if getattr(self, name) < 1:
                raise PlanError(f"{name}={getattr(self, name)} is none; give 1 or more")
        super().check()

    @property
    def least(self) -> int:
        """One block."""
        return self.block

    def index(self, sealed: Sealed) -> dict[str, Tensor]:
        """-> `means` [h, blocks, D]: the mean key of each block's representatives."""
        asked = pages(sealed.noted["asked"], self.block, -torch.inf)
        best = asked.topk(min(self.representatives, self.block), dim=-1)
        real = (best.values > -torch.inf)[..., None]  # a short block may have fewer
        keys = pages(sealed.keys, self.block, 0.0)
        chosen = keys.gather(2, best.indices[..., None].expand(*best.indices.shape, keys.shape[-1]))
        return {"means": ((chosen.float() * real).sum(2) / real.sum(2)).to(sealed.keys.dtype)}

    def index_bytes(self, count: int, heads: int, head_size: int, dtype: torch.dtype) -> int:
        """One key for every block."""
        return heads * -(-count // self.block) * head_size * dtype.itemsize

    def select(self, asked: Asked, held: Sequence[Candidates], k: int) -> list[Selection]:
        """The k // block blocks with the highest scores of the mean query."""
        probe = self.probe(asked).to(held[0].index["means"].dtype)
        scores = [(each.index["means"] @ probe[..., None])[..., 0].float() for each in held]
        return top_pages(jointly(scores, held), held, self.block, k)

    def probe(self, asked: Asked) -> Tensor:
        """-> [h, D] float32: what blocks are asked with."""
        return asked.queries.float().mean(2).sum(1)
