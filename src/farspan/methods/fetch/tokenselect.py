"""TokenSelect: heads vote for tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from farspan.errors import PlanError
from farspan.methods.fetch._choosing import at_positions, chosen_positions, dots, same_tokens, top
from farspan.methods.fetch.base import Asked, Candidates, Fetch, Selection
from farspan.registry import Paper


@dataclass(frozen=True, kw_only=True)
class Tokenselect(Fetch):
    """Read the tokens that a layer's heads vote for together, each with a softmax, and again while queries stay alike.

    Every query head gives its candidates shares that sum to one, by the mean of the queries; all heads of the layer
    then read the tokens with the largest sums. While answering, a selection serves until the cosine similarity of the
    queries to those it was made for falls below `similarity` (1: never again). Where heads hold different tokens, each
    votes for itself. The index is the keys themselves.

    Source: Wu et al. 2024, "TokenSelect", section 4.2 (soft vote) and 4.3 (selection cache); 128 sinks, 512 recent
    tokens and 0.9 are theirs. Products are scaled as attention scales them, which the authors' code leaves out, and
    positions stay the context's own.
    """

    paper: ClassVar[Paper | None] = Paper("TokenSelect", arxiv="2411.02886", id=134)

    sinks: int = 128
    recent: int = 512
    together: int = 0
    read: bool = True
    similarity: float = 0.9

    def check(self) -> None:
        """A cosine similarity."""
        if not -1 <= self.similarity <= 1:
            raise PlanError(f"similarity={self.similarity} is no cosine; give -1 (always reuse) to 1 (never)")
        super().check()

    def select(self, asked: Asked, held: Sequence[Candidates], k: int) -> list[Selection]:
        """The k tokens with the most votes, or those of the last selection."""
        mean = asked.queries.float().mean(2, keepdim=True)
        before = asked.memory.get("queries")
        if before is not None and not asked.reading and self._alike(mean, before):
            return at_positions(asked.memory["positions"], held)
        votes = _votes(mean, held, asked.scaling)
        selections = top([each.only(its) for each, its in zip(held, votes, strict=True)], k)
        asked.memory["queries"], asked.memory["positions"] = mean, chosen_positions(selections, held)
        return selections

    def _alike(self, mean: Tensor, before: Tensor) -> bool:
        close = float(cosine_similarity(mean.flatten(), before.flatten(), dim=0))
        return self.similarity < 1 and close >= self.similarity


def _votes(mean: Tensor, held: Sequence[Candidates], scaling: float) -> list[Tensor]:
    """mean [h, G, 1, D] -> for each extent [h, N]: the shares that query heads give its entries, summed."""
    scores = [each.only(dots(mean, each.keys) * scaling)[:, :, 0] for each in held]
    shares = torch.cat(scores, -1).softmax(-1).sum(1)
    if all(same_tokens(each) for each in held):
        shares = shares.sum(0, keepdim=True).repeat(shares.shape[0], 1)
    return list(shares.split([each.entries for each in held], -1))
