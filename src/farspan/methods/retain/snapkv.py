"""SnapKV: what the last queries look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from farspan.methods.retain._windowed import Windowed
from farspan.registry import Paper
from farspan.signals import Observation, window_attention


@dataclass(frozen=True, kw_only=True)
class Snapkv(Windowed):
    """Keep the entries that the last queries attend to, smoothed over neighbours so that whole phrases stay.

    Source: Li et al. 2024, "SnapKV: LLM Knows What You are Looking for Before Generation", section 3 and listing 1;
    votes are averaged over the query heads of a group, as grouped-query models need. In stream order the window is
    each chunk's own end; neighbours are neighbours among what is held.
    """

    paper: ClassVar[Paper | None] = Paper("SnapKV", arxiv="2404.14469", id=212)

    def score(self, observation: Observation) -> Tensor:
        """-> [H, N]: window attention, pooled."""
        return self.pooled(window_attention(observation, self.window), observation)
