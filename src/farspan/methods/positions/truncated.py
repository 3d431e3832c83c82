"""Giraffe's truncated basis."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from farspan.errors import PlanError
from farspan.methods.positions.base import Positions, Rope
from farspan.registry import Paper


@dataclass(frozen=True, kw_only=True)
class Truncated(Positions):
    """Stop the pairs that never went round in training, and leave the others as they are.

    Limits are turns within the trained length: a pair of `whole` turns or more keeps its frequency, one of fewer than
    `still` stops, and those in between all turn `slow` times in that length. The factor only says whether there is
    anything to extend: above 1 the same frequencies serve every length.

    Source: Pal et al. 2023, "Giraffe", section 3.4; 1, 1/8 and 1/16 are the settings of its code. The paper trains
    with these frequencies; here a model meets them unprepared.
    """

    paper: ClassVar[Paper | None] = Paper("Giraffe", arxiv="2308.10882", section="3.4", id=19)

    whole: float = 1.0
    still: float = 0.125
    slow: float = 0.0625

    def check(self) -> None:
        """Limits in order."""
        super().check()
        if not 0 <= self.slow <= self.still <= self.whole:
            raise PlanError(
                f"slow={self.slow:g}, still={self.still:g}, whole={self.whole:g}: turns must not be negative and must "
                "come in this order"
            )

    def stretch(self, rope: Rope, trained: int, factor: float) -> Rope:
        """-> each inverse, or slow turns' worth of it, or 0."""
        if factor == 1:
            return rope
        turns = rope.turns(trained)
        slow = torch.where(turns < self.still, 0.0, self.slow * 2 * math.pi / trained)
        return Rope(inverse=torch.where(turns >= self.whole, rope.inverse, slow.float()), scale=rope.scale)
