"""LongRoPE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from farspan.methods.positions.base import Positions, Rope, as_float32
from farspan.registry import Paper
from farspan.ropes import RopeFactors, load


@dataclass(frozen=True, kw_only=True)
class Longrope(Positions):
    """Slow each pair down by a factor of its own, searched on a text of yours, but not for the first tokens.

    `factors` is a file that `farspan search-positions` made for this model. A context longer than they were searched
    for slows all pairs further down, in proportion; one within the trained length is left as it is.

    Source: Ding et al. 2024, "LongRoPE", section 3; without its training.
    """

    paper: ClassVar[Paper | None] = Paper("LongRoPE", arxiv="2402.13753", section="3", id=360)
    artefacts: ClassVar[tuple[str, ...]] = ("factors",)
    artefact_module: ClassVar[str] = "farspan.ropes"

    factors: str

    def load(self) -> RopeFactors:
        """The factors that are named; raises ProfileError."""
        return load(self.factors)

    def applies(self, rope: Rope, trained: int | None) -> str | None:
        """One factor for each pair."""
        found = self.load()
        if len(found.factors) != rope.pairs:
            return f"it has factors for {len(found.factors)} pairs, and this model rotates {rope.pairs}"
        return None

    def stretch(self, rope: Rope, trained: int, factor: float) -> Rope:
        """-> inverse / factors."""
        if factor == 1:
            return rope
        found = self.load()
        further = max(1.0, factor * trained / found.length)
        slower = torch.tensor(found.factors, dtype=torch.float64, device=rope.inverse.device) * further
        return Rope(inverse=as_float32(rope.inverse.double() / slower), scale=rope.scale)

    def unscaled(self, factor: float) -> int:
        """As searched."""
        return 0 if factor == 1 else self.load().unscaled
