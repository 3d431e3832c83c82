"""NTK-aware scaling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from farspan.methods.positions.base import Positions, Rope, as_float32
from farspan.registry import Paper


@dataclass(frozen=True, kw_only=True)
class Ntk(Positions):
    """Raise the base of the frequencies: the slowest pair slows down by the factor, the fastest not at all.

    The base b becomes b · factor^(d / (d - 2)) for d rotated dimensions, which multiplies pair i of n by
    factor^(-i / (n - 1)). Source: bloc97 2023, "NTK-Aware Scaled RoPE", as in YaRN (Peng et al. 2023), section 3.1.
    """

    paper: ClassVar[Paper | None] = Paper("YaRN", arxiv="2309.00071", section="3.1")

    def stretch(self, rope: Rope, trained: int, factor: float) -> Rope:
        """-> inverse · factor^(-i / (n - 1))."""
        share = torch.arange(rope.pairs, dtype=torch.float64, device=rope.inverse.device) / max(1, rope.pairs - 1)
        return Rope(inverse=as_float32(rope.inverse.double() * factor**-share), scale=rope.scale)
