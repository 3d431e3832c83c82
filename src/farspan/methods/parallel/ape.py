"""APE: pieces that share their positions, attended to more sharply."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from farspan.cache.pieces import Pieces
from farspan.errors import PlanError
from farspan.methods.parallel.base import Parallel, Standing, side_by_side
from farspan.registry import Paper


@dataclass(frozen=True, kw_only=True)
class Ape(Parallel):
    """Let all pieces stand at the same positions, and attend to them at a lower temperature and scale.

    Every piece stands behind the shared prefix, and the longest one says where the next token does: many pieces stay
    within the trained length. Attention that was spread over pieces is sharpened: scores of their entries are divided
    by `temperature`, and what they sum to is raised to the power `scale` times `temperature` before it meets the prefix
    and what follows, where 1 and 1 change nothing. In layers with a sliding window tokens stand one after another, as
    those hold the last ones only, and are attended to like any.

    Source: Yang et al. 2025, "APE", section 4, and its released code (ape/ape_llama.py): scores of the pieces alone at
    the temperature, their log-sum-exp times scale and temperature, then merged with prefix and query by softmax; both
    are 0.9 in its demos, 0.9 and 1 in its runs of ChatRAG-Bench. The paper searches them per task, below 1.
    """

    paper: ClassVar[Paper | None] = Paper("APE", arxiv="2502.05431", id=116)
    conflicts: ClassVar[tuple[str, ...]] = ("fetch", "prefill")

    temperature: float = 0.9
    scale: float = 0.9

    def check(self) -> None:
        """Both are numbers above 0."""
        super().check()
        for name, value in (("temperature", self.temperature), ("scale", self.scale)):
            if not 0 < value < math.inf:
                raise PlanError(f"{name}={value:g} is no number above 0; 1 changes nothing, the paper's are below 1")

    def stand(self, first: int, lengths: Sequence[int]) -> Standing:
        """Side by side."""
        return side_by_side(first, lengths)

    def pieces(self, ranges: Sequence[tuple[int, int]]) -> Pieces:
        """At a temperature and scale of their own."""
        return Pieces(tuple(ranges), temperature=self.temperature, scale=self.scale)
