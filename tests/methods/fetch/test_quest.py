"""Quest's bounds hold for every key of a page, and choose by what a page could answer at best."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from farspan.methods.fetch.quest import Quest
from farspan.methods.fetch.topk import Topk
from tests.methods.fetch.held import asked, held, positions_of

pytestmark = pytest.mark.usefixtures("poisoned")


def test_a_page_is_judged_by_the_best_of_each_channel() -> None:
    """No key of the second page scores as high as the one of the first, but its channels' best ones together do."""
    keys = torch.tensor([[2.0, 1.0], [0.0, 0.0], [3.0, -9.0], [-9.0, 3.0]])[None]
    query = torch.ones(1, 1, 1, 2)  # scores 3, 0 | -6, -6; bounds 2+1 | 3+3
    method = Quest(budget=2, page=2)
    extents = [held(keys, method)]
    assert positions_of(method.select(asked(query), extents, 2), extents) == [[2, 3]]
    assert positions_of(Topk(budget=2).select(asked(query), extents, 2), extents) == [[0, 1]]


def test_negative_queries_are_bounded_by_the_least_key() -> None:
    keys = torch.tensor([[-5.0], [4.0], [-1.0], [0.0]])[None]
    method = Quest(budget=2, page=2)
    extents = [held(keys, method)]
    assert positions_of(method.select(asked(torch.full((1, 1, 1, 1), -1.0)), extents, 2), extents) == [[0, 1]]
    short = [held(torch.tensor([[-1.0], [0.0], [-3.0]])[None], method)]  # the last page holds one key
    assert positions_of(method.select(asked(torch.full((1, 1, 1, 1), -1.0)), short, 2), short) == [[2]]


@given(seed=st.integers(0, 2**31), page=st.integers(1, 6), count=st.integers(1, 20), group=st.integers(1, 3))
def test_the_chosen_pages_are_those_of_the_naive_bounds(seed: int, page: int, count: int, group: int) -> None:
    g = torch.Generator().manual_seed(seed)
    keys, queries = torch.randn(1, count, 4, generator=g), torch.randn(1, group, 1, 4, generator=g)
    bounds = []
    for start in range(0, count, page):
        its = keys[0, start : start + page]
        best = [(torch.maximum(q * its.amax(0), q * its.amin(0))).sum() for q in queries[0, :, 0]]
        assert all(bound >= (its @ q).max() - 1e-5 for bound, q in zip(best, queries[0, :, 0], strict=True))
        bounds.append(float(sum(best)))
    method = Quest(budget=page, page=page)
    extents = [held(keys, method)]
    (chosen,) = positions_of(method.select(asked(queries), extents, page), extents)
    assert chosen == list(range(count))[max(range(len(bounds)), key=bounds.__getitem__) * page :][:page]


def test_pages_that_are_half_sinks_or_recent_give_their_candidates_alone() -> None:
    keys = torch.arange(12.0).reshape(1, 12, 1)
    method = Quest(budget=8, page=4)
    extents = [held(keys, method, first=[3], stop=[9])]
    (chosen,) = positions_of(method.select(asked(torch.ones(1, 1, 1, 1)), extents, 8), extents)
    assert chosen == [4, 5, 6, 7, 8], "the page that begins with one candidate after three sinks scores less"
