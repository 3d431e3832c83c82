"""YaRN."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from farspan.errors import PlanError
from farspan.methods.positions.base import Positions, Rope, as_float32, index_of_turns, ramp
from farspan.registry import Paper


@dataclass(frozen=True, kw_only=True)
class Yarn(Positions):
    """Slow pairs down by how often they went round in training: fast ones not at all, slow ones by the factor.

    Pairs that go round `beta_fast` times or more within the trained length stay as they are, those of `beta_slow`
    or fewer are interpolated, with a ramp over the pairs in between. Attention gets sharper as texts get longer:
    cosines and sines are multiplied with `attention_factor`, 0.1 ln(factor) + 1 unless it is given.

    Source: Peng et al. 2023, "YaRN", section 3.2 to 3.4; ends of the ramp rounded outwards to whole pairs, as its code
    and transformers do.
    """

    paper: ClassVar[Paper | None] = Paper("YaRN", arxiv="2309.00071")

    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None

    def check(self) -> None:
        """The ramp has two ends."""
        super().check()
        if not 0 < self.beta_slow < self.beta_fast:
            raise PlanError(
                f"beta_slow={self.beta_slow:g} and beta_fast={self.beta_fast:g}: the slow end must be above 0 and "
                "below the fast one"
            )
        if self.attention_factor is not None and self.attention_factor <= 0:
            raise PlanError(f"attention_factor={self.attention_factor:g} must be above 0; 1 leaves attention as it is")

    def stretch(self, rope: Rope, trained: int, factor: float) -> Rope:
        """-> between inverse / factor and inverse, pair by pair; scale · attention_factor."""
        fastest = max(math.floor(index_of_turns(rope, trained, self.beta_fast)), 0)
        slowest = max(fastest, min(math.ceil(index_of_turns(rope, trained, self.beta_slow)), 2 * rope.pairs - 1))
        index = torch.arange(rope.pairs, dtype=torch.float64, device=rope.inverse.device)
        slowed = ramp(index, fastest, slowest)
        inverse = rope.inverse.double()
        inverse = inverse / factor * slowed + inverse * (1 - slowed)
        return Rope(inverse=as_float32(inverse), scale=rope.scale * self._temperature(factor))

    def _temperature(self, factor: float) -> float:
        return 0.1 * math.log(factor) + 1 if self.attention_factor is None else self.attention_factor
