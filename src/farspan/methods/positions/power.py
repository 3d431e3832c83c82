"""Giraffe's power basis."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from farspan.errors import PlanError
from farspan.methods.positions.base import Positions, Rope, as_float32
from farspan.registry import Paper


@dataclass(frozen=True, kw_only=True)
class Power(Positions):
    """Slow pair i of n down to (1 - i / n)^`exponent` of its speed, so that fast ones hardly change.

    Source: Pal et al. 2023, "Giraffe", section 3.3. Without an `exponent` it is ln(factor) / ln(n), which slows the
    slowest pair down by the factor, as the other methods here do; the paper trained with exponents of its own.
    """

    paper: ClassVar[Paper | None] = Paper("Giraffe", arxiv="2308.10882", section="3.3", id=19)

    exponent: float | None = None

    def check(self) -> None:
        """A negative exponent would speed pairs up."""
        super().check()
        if self.exponent is not None and self.exponent < 0:
            raise PlanError(f"exponent={self.exponent:g} would turn pairs faster; give 0 or more, or leave it out")

    def stretch(self, rope: Rope, trained: int, factor: float) -> Rope:
        """-> inverse · (1 - i / n)^exponent."""
        if factor == 1:
            return rope
        exponent = math.log(factor) / math.log(max(2, rope.pairs)) if self.exponent is None else self.exponent
        share = 1 - torch.arange(rope.pairs, dtype=torch.float64, device=rope.inverse.device) / rope.pairs
        return Rope(inverse=as_float32(rope.inverse.double() * share**exponent), scale=rope.scale)
