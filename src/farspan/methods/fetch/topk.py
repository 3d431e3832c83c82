"""Exact top-k: the entries that attention itself would weigh most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from farspan.methods.fetch._choosing import attention_mass, top
from farspan.methods.fetch.base import Asked, Candidates, Fetch, Selection


@dataclass(frozen=True, kw_only=True)
class Topk(Fetch):
    """Read the entries with the most attention: the exact choice that every index is an estimate of.

    Per key-value head, those that hold the largest share of full attention, summed over the query heads of its group
    (and over queries that share a selection). To know them all keys are read, so this saves the reading of values
    alone: it is the yardstick for methods that save more.
    """

    def select(self, asked: Asked, held: Sequence[Candidates], k: int) -> list[Selection]:
        """The k of most mass; scores are normalised over all that each query could see."""
        return top(attention_mass(asked, held), k)
