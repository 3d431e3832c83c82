"""Position interpolation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from farspan.methods.positions.base import Positions, Rope
from farspan.registry import Paper


@dataclass(frozen=True, kw_only=True)
class Linear(Positions):
    """Slow every pair down by the factor, so that a long text turns as far as a trained one.

    Source: Chen et al. 2023, "Extending Context Window of Large Language Models via Positional Interpolation".
    """

    paper: ClassVar[Paper | None] = Paper("Position Interpolation", arxiv="2306.15595")

    def stretch(self, rope: Rope, trained: int, factor: float) -> Rope:
        """-> inverse / factor."""
        return Rope(inverse=rope.inverse / factor, scale=rope.scale)
