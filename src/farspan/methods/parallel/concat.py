"""Pieces read apart and put one after another: what the others have to beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from farspan.methods.parallel.base import Parallel, Standing, one_after_another


@dataclass(frozen=True, kw_only=True)
class Concat(Parallel):
    """Put pieces that were read apart one after another, nothing else: the null.

    Keys stand where they would if the pieces had been read in this order; no piece has seen another.
    """

    def stand(self, first: int, lengths: Sequence[int]) -> Standing:
        """One after another."""
        return one_after_another(first, lengths)
