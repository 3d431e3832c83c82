"""TCA-Attention: budgets by how widely each head was seen to spread its attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from farspan.heads import HeadProfile
from farspan.methods.retain._profiled import Profiled
from farspan.registry import Paper


@dataclass(frozen=True, kw_only=True)
class Tca(Profiled):
    """Give each head what its calibration says it needs, and keep the least redundant keys within it.

    Source: You et al. 2025, "Training-free Context-adaptive Attention": budgets of heads are calibrated once, offline,
    and a cheap measure of redundancy selects the core context. This is our reading of the abstract, not checked against
    the paper's equations: a head needs the share of entries that gathers 90% of its attention (`spread` in the head
    profile), budgets above the floor are in proportion to it over all heads of all layers, and redundancy is that of
    `keydiff`, the likeness to the mean key, unless the plan names another scorer. In stream order one selection serves
    reading, answering and the cache, as in the paper: later chunks see only what was kept of earlier ones. In layerwise
    order reading is dense. Heads that copy look at few entries, which nobody knows beforehand, and so get few.
    """

    paper: ClassVar[Paper | None] = Paper("TCA-Attention", arxiv="2512.09238", id=318)
    default_scorer: ClassVar[str] = "keydiff"

    def weights(self, profile: HeadProfile) -> list[list[float]]:
        """-> the spread of each head."""
        return [list(row) for row in profile.scores["spread"]]
