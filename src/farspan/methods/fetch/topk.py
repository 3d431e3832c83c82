"""Exact top-k: the entries that attention itself would weigh most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from farspan.methods.fetch._choosing import dots, top
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
        scores = [each.only(dots(asked.queries, each.keys) * asked.scaling) for each in held]
        candidates = torch.stack([its.logsumexp(-1) for its in scores]).logsumexp(0)
        total = torch.logaddexp(candidates, asked.anyway())[..., None]
        masses = ((its - total).exp_().sum((1, 2)) for its in scores)
        return top([each.only(mass) for each, mass in zip(held, masses, strict=True)], k)
