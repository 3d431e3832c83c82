"""What scorers that look through a window of the last queries have in common."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from farspan.errors import PlanError
from farspan.methods.retain.base import Scorer
from farspan.signals import Observation


@dataclass(frozen=True, kw_only=True)
class Windowed(Scorer):
    """Scores by the last `window` queries, smoothed over `kernel` neighbours so that whole phrases stay."""

    window: int = 32
    kernel: int = 5

    def check(self) -> None:
        """The window must see something; the kernel has a centre."""
        if self.window < 1:
            raise PlanError(f"window={self.window} sees no query; give 1 or more")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise PlanError(f"kernel={self.kernel} has no centre; give an odd number of 1 or more")

    def protects(self) -> tuple[int, int]:
        """The observation window itself stays, with the sinks every scorer keeps."""
        return super().protects()[0], self.window

    def observes(self) -> int:
        """The observation window."""
        return self.window

    def pooled(self, scores: Tensor, observation: Observation) -> Tensor:
        """scores [H, N] averaged over `kernel` neighbours, zeros beyond the ends, as in SnapKV's listing.

        The window's own entries count as zeros too: the listing pools what comes before the window, so what the last
        tokens pay to each other must not lift the entries next to them.
        """
        scores = scores.masked_fill(observation.positions >= observation.query_positions[-self.window :][0], 0.0)
        return F.avg_pool1d(scores, self.kernel, stride=1, padding=self.kernel // 2)
