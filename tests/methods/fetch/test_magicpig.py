"""MagicPIG: probabilities are those of the hash, and what is sampled estimates attention without bias."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from farspan.methods.fetch.magicpig import Magicpig, planes, sampling
from farspan.methods.fetch.topk import Topk
from tests.methods.fetch.held import asked, held, positions_of

pytestmark = pytest.mark.usefixtures("poisoned")
SIZE, ENTRIES, SEEDS = 8, 24, 400


def problem() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(11)
    return torch.randn(1, ENTRIES, SIZE, generator=g), torch.randn(1, 2, 1, SIZE, generator=g)


def test_the_probability_is_that_of_two_tables_by_hand() -> None:
    right_angle = sampling(torch.tensor([0.0]), 1, 2)  # one plane, two tables: both must agree, 1/2 · 1/2
    assert float(right_angle) == pytest.approx(0.25)
    sixty = 1 - (1 / 3)
    x = sixty**3
    expected = 1 - (1 - x) ** 4 - 4 * x * (1 - x) ** 3
    assert float(sampling(torch.tensor([0.5]), 3, 4)) == pytest.approx(expected, rel=1e-6)
    assert float(sampling(torch.tensor([1.0]), 5, 9)) == pytest.approx(1.0)
    assert planes(0, 2, 3, 4).shape == (4, 6)


@pytest.mark.parametrize("k", [ENTRIES, 5])
def test_the_estimate_is_unbiased_over_seeds(k: int) -> None:
    """Sums of exp(s)·v and of exp(s) over the sample, within four standard errors of those over all entries."""
    keys, queries = problem()
    values = torch.randn(ENTRIES, generator=torch.Generator().manual_seed(5)).double()
    weights = (queries[0, :, 0].double() @ keys[0].double().T * 0.4).exp()  # [G, N]
    estimates = []
    for seed in range(SEEDS):
        method = Magicpig(budget=k, bits=3, tables=6, seed=seed)
        extents = [held(keys[:, :10], method), held(keys[:, 10:], method, start=10)]
        selections = method.select(asked(queries, scaling=0.4, seed=seed), extents, k)
        chosen = torch.tensor(positions_of(selections, extents)[0], dtype=torch.int64)
        assert chosen.numel() <= k
        raised = torch.cat([(s.log_weights or ())[0] for s in selections]).double().exp()
        mine = weights[:, chosen] * raised
        estimates.append(torch.cat([(mine * values[chosen]).sum(1), mine.sum(1)]))
    found = torch.stack(estimates)
    truth = torch.cat([(weights * values).sum(1), weights.sum(1)])
    error = found.std(0) / math.sqrt(SEEDS)
    assert bool(((found.mean(0) - truth).abs() < 4 * error).all())
    assert bool((error < 0.12 * weights.sum(1).repeat(2)).all()), "an estimate that is nowhere near proves nothing"


def test_it_samples_where_top_k_would_not_look() -> None:
    """Of equal keys, top-k reads the first k for ever; samples differ with the hash and count for the rest."""
    keys, query = torch.randn(1, 1, SIZE).repeat(1, 30, 1), torch.randn(1, 1, 1, SIZE)
    keys = keys + 0.01 * torch.randn(1, 30, SIZE)
    top = [held(keys)]
    assert len(positions_of(Topk(budget=4).select(asked(query), top, 4), top)[0]) == 4
    seen = set()
    for seed in range(40):
        method = replace(Magicpig(budget=4, bits=2, tables=8), seed=seed)
        extents = [held(keys, method)]
        seen |= set(positions_of(method.select(asked(query, seed=seed), extents, 4), extents)[0])
    assert len(seen) > 20


def test_a_selection_is_the_same_in_any_process() -> None:
    keys, queries = problem()
    method = Magicpig(budget=6, bits=2, tables=8)
    extents = [held(keys, method)]
    one, two = (method.select(asked(queries, seed=9), extents, 6) for _ in range(2))
    assert positions_of(one, extents) == positions_of(two, extents)
