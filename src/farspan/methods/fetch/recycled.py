"""Recycled Attention: what the last full step attended to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import cosine_similarity

from farspan.errors import PlanError
from farspan.methods.fetch._choosing import at_positions, attention_mass, chosen_positions, top
from farspan.methods.fetch.base import EVERYTHING, Asked, Candidates, Fetch, Selection
from farspan.registry import Paper


@dataclass(frozen=True, kw_only=True)
class Recycled(Fetch):
    """Read everything at every `stride`-th token, and in between what that step attended to most.

    A step with several tokens, as of a question, is a full one. With `similarity` above -1 a full step comes as soon as
    the query's cosine similarity to that of the last full step falls below it, in each layer by itself, and at the
    stride at the latest. New tokens are read until they seal, and then as far as they are recent.

    Source: Xu et al. 2024, "Recycled Attention", section 3 and its dynamic schedule; the query heads of a group share
    what is recycled, by the sum of what they attend to. There is no index: a full step costs what it always costs.
    """

    paper: ClassVar[Paper | None] = Paper("Recycled Attention", arxiv="2411.05787", id=331)

    together: int = 0
    stride: int = 50
    similarity: float = -1.0

    def check(self) -> None:
        """A stride that advances, a cosine similarity."""
        if self.stride < 1:
            raise PlanError(f"stride={self.stride} never reads anything; give 1 (every step is full) or more")
        if not -1 <= self.similarity <= 1:
            raise PlanError(f"similarity={self.similarity} is no cosine; give -1 (by stride alone) to 1")
        super().check()

    def select(self, asked: Asked, held: Sequence[Candidates], k: int) -> list[Selection]:
        """Everything, noting the k that get the most attention of the newest query; or those noted last."""
        memory, newest = asked.memory, asked.queries[:, :, -1].float()
        memory["age"] = memory.get("age", self.stride) + 1
        if asked.queries.shape[2] == 1 and memory["age"] < self.stride and self._alike(newest, memory["queries"]):
            return at_positions(memory["positions"], held)
        best = top(attention_mass(asked, held, slice(-1, None)), k)
        memory.update(age=0, queries=newest, positions=chosen_positions(best, held))
        return [EVERYTHING] * len(held)

    def _alike(self, query: Tensor, before: Tensor) -> bool:
        return float(cosine_similarity(query.flatten(), before.flatten(), dim=0)) >= self.similarity
