"""Exact top-k is the choice that covers most attention: by hand, and against every other choice."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from farspan.methods.fetch.topk import Topk
from tests.methods.fetch.held import asked, held, positions_of

pytestmark = pytest.mark.usefixtures("poisoned")


def masses(queries: Tensor, keys: Tensor, scaling: float, anyway: float) -> Tensor:
    """queries [G, t, D], keys [N, D] -> [N]: summed shares of full attention."""
    total = torch.zeros(keys.shape[0], dtype=torch.float64)
    for q in queries.flatten(0, 1).double():
        weights = (keys.double() @ q * scaling).exp()
        total += weights / (weights.sum() + math.exp(anyway))
    return total


def test_a_group_shares_what_serves_it_best_together() -> None:
    """Two query heads: one all but decided, by what is read anyway; the other spread. The loudest score loses."""
    keys = torch.tensor([[4.0, 0.0], [0.0, 1.0], [0.0, 1.1]])
    queries = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])  # scores 4, 0, 0 and 0, 1, 1.1
    given_anyway = torch.tensor([[[9.0], [0.0]]])  # the first head attends to its tail: e⁴ of e⁹ + e⁴ + 2
    question = asked(queries[None], scaling=1.0, anyway=given_anyway)
    chosen = Topk(budget=1).select(question, [held(keys[None])], 1)
    assert positions_of(chosen, [held(keys[None])]) == [[2]]


@given(seed=st.integers(0, 2**31), k=st.integers(1, 5), cut=st.integers(1, 7), group=st.integers(1, 3))
def test_no_other_choice_covers_more(seed: int, k: int, cut: int, group: int) -> None:
    g = torch.Generator().manual_seed(seed)
    keys, queries = torch.randn(2, 8, 4, generator=g) * 2, torch.randn(2, group, 2, 4, generator=g)
    extents = [held(keys[:, :cut], first=[1, 0]), held(keys[:, cut:], start=cut, stop=[8 - cut, 7 - cut])]
    anyway = torch.full((2, group, 2), 0.3)
    selections = Topk(budget=k).select(asked(queries, scaling=0.5, anyway=anyway), extents, k)
    for head, chosen in enumerate(positions_of(selections, extents)):
        free = range(1, 8) if head == 0 else range(7)
        visible = torch.zeros(8, dtype=torch.bool)
        visible[list(free)] = True
        mass = masses(queries[head], keys[head, visible], 0.5, 0.3)
        by_position = dict(zip(free, mass.tolist(), strict=True))
        best = max(sum(by_position[p] for p in each) for each in combinations(free, min(k, len(free))))
        assert len(chosen) == min(k, len(free))
        assert sum(by_position[p] for p in chosen) == pytest.approx(best, rel=1e-5)
