"""What methods share that merge pieces while the model reads them, instead of putting finished ones together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from farspan.budget import Budget
from farspan.errors import PlanError
from farspan.methods.parallel.base import Parallel, Standing, side_by_side


class Asking(NamedTuple):
    """The last layer that a piece has passed, and some of the queries there."""

    queries: Tensor
    """[Hq, W, D], after rotation."""
    at: Tensor
    """[W] which of the piece's tokens ask, ascending; the last one is its last token."""
    keys: Tensor
    """[Hk, n, D], after rotation."""
    positions: Tensor
    """[n] where the piece's tokens stand; merged pieces share positions."""
    scaling: float


@dataclass(frozen=True, kw_only=True)
class Merging(Parallel):
    """Pieces pass the first layers apart, lose tokens and are merged two by two, until one passes the last layers.

    Every piece begins with the text's first tokens and ends with its last ones (`ends`, and a probe behind them). The
    last ones have seen another piece in each, and are averaged when pieces merge. What a piece loses it loses in all
    layers that it has passed.
    """

    conflicts: ClassVar[tuple[str, ...]] = ("prefill", "score", "allocate", "fold", "fetch")
    orders: ClassVar[tuple[str, ...]] = ("stream",)

    budget: Budget | None = None
    """Tokens held in the end, in every head of every layer; None: as many as a piece may have."""
    ends: int = 100

    def check(self) -> None:
        """A piece holds both ends and something between them."""
        super().check()
        if self.ends < 1:
            raise PlanError(f"ends={self.ends}: a piece needs a last token that asks; give 1 or more")
        if self.chunk < 2 * self.ends + 2:
            raise PlanError(
                f"chunk={self.chunk} has no room for a piece between the text's first and last {self.ends} tokens; "
                f"give chunk={2 * self.ends + 2} or more, or fewer ends"
            )

    def stand(self, first: int, lengths: Sequence[int]) -> Standing:
        """All pieces at the same positions."""
        return side_by_side(first, lengths)

    def stops(self, layers: int, height: int) -> list[int]:
        """How many of the model's layers a piece has passed when it is to be merged for the first, second, ... time;
        the last is all of them.
        """
        raise TypeError(f"{type(self).__name__} defines no stops(layers, height)")

    def asks(self, tokens: int) -> Tensor:
        """Which of a piece's tokens' queries it wants to see, ascending; the last token among them."""
        return torch.tensor([tokens - 1])

    def significance(self, asking: Asking) -> Tensor:
        """-> [n] float: how much each token of a piece matters; the highest stay."""
        raise TypeError(f"{type(self).__name__} defines no significance(asking)")


__all__ = ["Asking", "Merging"]
