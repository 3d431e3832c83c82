"""ILRe: tokens recalled at one intermediate layer, below which reading is cheap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import max_pool1d

from farspan.errors import PlanError
from farspan.methods.compress._skimming import Skimmed, Skimmer
from farspan.methods.prefill.ashape import Ashape
from farspan.methods.prefill.base import check_band
from farspan.registry import Paper
from farspan.signals import attention_blocks


@dataclass(frozen=True, kw_only=True)
class Ilre(Skimmer):
    """Stream the text up to one layer under sinks and a window, and read the tokens that the question attends to there.

    Source: Liang et al. 2025, "ILRe": cost grows with the text and not with its square; attention of the question's
    tokens to all keys of the layer is pooled with several kernels, each of which has its part of the budget, so that
    single words and whole passages are both recalled. Kernels are 1, 3, 9 and so on, `kernels` of them, and wide ones
    choose first: our reading of the description, which gives neither. The paper finds the layer by a retrieval task
    offline and takes layer 3 of a Llama's 32; the default is as deep in other models, and at least 1.
    """

    paper: ClassVar[Paper | None] = Paper("ILRe", arxiv="2508.17892", id=343)

    kernels: int = 3
    sinks: int = 64
    window: int = 1024
    queries: int = 64

    def check(self) -> None:
        """Somebody asks, and through some kernel."""
        super().check()
        check_band(self.sinks, self.window)
        for name in ("kernels", "queries"):
            if (value := getattr(self, name)) < 1:
                raise PlanError(f"{name}={value}; give 1 or more")

    def asks(self, layers: int) -> int:
        """-> 3 of 32."""
        return max(1, layers * 3 // 32) if self.layer is None else self.layer

    def observes(self) -> int:
        """The question's tokens, the last of them."""
        return self.queries

    def below(self) -> Ashape:
        """Sinks and a window."""
        return Ashape(sinks=self.sinks, window=self.window)

    def choose(self, skimmed: Skimmed, budget: int) -> Tensor:
        """-> what each kernel chooses of those left, widest first; what does not divide goes to the first."""
        scores = torch.zeros(skimmed.tokens, device=skimmed.queries.device)
        asked = (skimmed.held, skimmed.queries, skimmed.positions, skimmed.scaling)
        for piece, shares in attention_blocks(*asked):
            at = piece.positions.expand(shares.shape[0], -1).long() - skimmed.first
            inside = (at >= 0) & (at < skimmed.tokens)
            scores.index_add_(0, at[inside], shares.sum(1)[inside])
        taken = torch.zeros(skimmed.tokens, dtype=torch.bool, device=scores.device)
        for index in reversed(range(self.kernels)):
            size = 3**index
            pooled = max_pool1d(scores[None], size, 1, size // 2)[0].masked_fill(taken, -torch.inf)
            count = min(-(-(budget - int(taken.sum())) // (index + 1)), int((~taken).sum()))
            taken[pooled.sort(descending=True, stable=True).indices[:count]] = True
        return taken.nonzero()[:, 0]
