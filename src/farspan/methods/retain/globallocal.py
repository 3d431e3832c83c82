"""EMS's score: what matters over the whole text, or to its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from farspan.methods.retain._windowed import Windowed
from farspan.registry import Paper
from farspan.signals import Observation, chunk_attention, window_attention


@dataclass(frozen=True, kw_only=True)
class Globallocal(Windowed):
    """Keep what the whole text attends to or what its end does: the larger of a global and a local score.

    Source: Li et al. 2024, "EMS", the Global-Local score. Global is accumulated attention divided by the number of
    queries that could see the entry, which takes away the lead that a sum gives to old entries; local is the attention
    of the last `window` queries, divided alike. Both are brought to the same mean, the larger counts, smoothed over
    `kernel` neighbours. The paper's abstract names the two parts and why; the division, the common mean and the
    maximum are this file's reading of it, not checked against the authors' code, which is not public.
    """

    paper: ClassVar[Paper | None] = Paper("EMS", arxiv="2412.08521", id=152)
    accumulates: ClassVar[tuple[str, ...]] = ("attention",)

    def accumulate(self, observation: Observation) -> dict[str, Tensor]:
        """-> what each entry had drawn, and what the chunk's queries pay to it."""
        return {"attention": observation.state["attention"] + chunk_attention(observation)}

    def score(self, observation: Observation) -> Tensor:
        """-> [H, N]: the larger of both per query that could see the entry, smoothed."""
        o, newest = observation, observation.query_positions[-1]
        could_see = (newest + 1 - o.positions).clamp(min=1)
        everywhere = o.state["attention"] / could_see
        here = window_attention(o, self.window) / could_see.clamp(max=min(self.window, o.queries.shape[1]))
        level = here.mean(1, keepdim=True) / everywhere.mean(1, keepdim=True).clamp(min=1e-30)
        return self.pooled(here.maximum(everywhere * level), o)
