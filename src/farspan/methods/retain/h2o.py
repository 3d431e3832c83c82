"""H2O: heavy hitters, the entries that have drawn the most attention so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from farspan.errors import PlanError
from farspan.methods.retain.base import Scorer
from farspan.registry import Paper
from farspan.signals import Observation, chunk_attention


@dataclass(frozen=True, kw_only=True)
class H2o(Scorer):
    """Keep the entries that have drawn the most attention so far, summed over all queries since they came.

    Source: Zhang et al. 2023, "H2O: Heavy-Hitter Oracle", algorithm 1: the sum runs over every query that an entry was
    there for, so old entries have had more time to gather than new ones. `recent` newest entries always stay (the paper
    gives them half of the budget); no sinks are set aside, because they gather most by themselves. Query heads of a
    group are averaged. Accumulating costs another QKᵀ for every chunk, beside the attention itself.
    """

    paper: ClassVar[Paper | None] = Paper("H2O", arxiv="2306.14048")
    accumulates: ClassVar[tuple[str, ...]] = ("attention",)

    recent: int = 32

    def check(self) -> None:
        """The newest entry, which nothing but itself has seen, must stay."""
        if self.recent < 1:
            raise PlanError(f"recent={self.recent} would drop entries that nothing has looked at yet; give 1 or more")

    def protects(self) -> tuple[int, int]:
        """Recent entries alone."""
        return 0, self.recent

    def accumulate(self, observation: Observation) -> dict[str, Tensor]:
        """-> what each entry had drawn, and what the chunk's queries pay to it."""
        return {"attention": observation.state["attention"] + chunk_attention(observation)}

    def score(self, observation: Observation) -> Tensor:
        """-> [H, N]: accumulated attention."""
        return observation.state["attention"]
