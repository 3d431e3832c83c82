"""SpAtten with both of its cascades: tokens and heads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from farspan.errors import PlanError
from farspan.methods.retain.spatten import Spatten
from farspan.registry import Paper

FRONT = 0.3  # of the layers keep all heads


@dataclass(frozen=True, kw_only=True)
class SpattenHeads(Spatten):
    """Prune tokens as `spatten` does, and heads too: those that put out least over the layers so far, in cascade.

    A head that is pruned holds nothing, puts out nothing, and stays pruned in later layers; what it would have held is
    freed, not given to others. The first 30% of the full-attention layers keep all heads, the last keeps the share
    `heads` of them, those between keep what lies on the line, rounded up.

    Source: Wang et al. 2021, "SpAtten", section III-B: a head's importance is the magnitude of its output, summed over
    tokens, channels and layers. With grouped queries the importance of a key-value head is that of its query heads
    together, and they go together. Heads are chosen when a text is first read, by its first chunk in stream order; what
    is appended, asked and answered goes by that choice. A head of one layer need not be kin of that of the next.
    """

    paper: ClassVar[Paper | None] = Paper("SpAtten", arxiv="2012.09852", section="III-B", id=223)
    conflicts: ClassVar[tuple[str, ...]] = ("prefill", "fetch", "parallel")

    heads: float = 0.5

    def check(self) -> None:
        """A share, less than all."""
        if not 0 < self.heads < 1:
            raise PlanError(f"heads={self.heads} is no share of the heads to keep; give more than 0 and less than 1")

    def heads_left(self, layer: int, layers: int, heads: int) -> int:
        """All in front, then along the line to the share, and one at least."""
        front = math.ceil(FRONT * layers)
        depth = max(0, layer + 1 - front) / max(1, layers - front)
        return max(1, math.ceil(heads * (1 - (1 - self.heads) * depth) - 1e-9))

    def head_importance(self, out: Tensor) -> Tensor:
        """The sum of magnitudes."""
        return out.double().abs().sum((1, 2, 3))

    def applies(self, heads: Mapping[int, int]) -> str | None:
        """Heads are known by number, and some have to go."""
        numbers = sorted(set(heads.values()))
        if len(numbers) > 1:
            return f"heads are pruned by number, and this model's layers have {' or '.join(map(str, numbers))} of them"
        if all(self.heads_left(rank, len(heads), numbers[0]) == numbers[0] for rank in range(len(heads))):
            return (
                f"heads={self.heads:g} prunes none of the {numbers[0]} key-value heads in {len(heads)} layers of full "
                "attention; give less, or take spatten"
            )
        return None
