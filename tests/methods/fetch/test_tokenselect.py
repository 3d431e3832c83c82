"""TokenSelect: a vote of shares over the heads of a layer, and reuse while queries stay alike."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from farspan.methods.fetch.tokenselect import Tokenselect
from farspan.methods.fetch.topk import Topk
from tests.methods.fetch.held import asked, held, positions_of

pytestmark = pytest.mark.usefixtures("poisoned")


def test_a_head_that_is_loud_has_no_more_votes_than_a_quiet_one() -> None:
    """Head 0 is all but decided for token 0; heads 1 and 2 prefer token 1 mildly. Each casts one vote in all."""
    keys = torch.tensor([[[9.0], [0.0], [0.0]], [[0.0], [2.0], [0.0]], [[0.0], [2.0], [0.0]]])
    method, query = Tokenselect(budget=1), torch.ones(3, 1, 1, 1)
    extents = [held(keys)]
    assert positions_of(method.select(asked(query), extents, 1), extents) == [[1], [1], [1]]
    assert positions_of(Topk(budget=1).select(asked(query), extents, 1), extents) == [[0], [1], [1]]


@given(seed=st.integers(0, 2**31), cut=st.integers(1, 11), tokens=st.integers(1, 4))
def test_votes_are_the_definition(seed: int, cut: int, tokens: int) -> None:
    g = torch.Generator().manual_seed(seed)
    keys, queries = torch.randn(2, 12, 4, generator=g), torch.randn(2, 3, tokens, 4, generator=g)
    votes = torch.zeros(12)
    for head in range(2):
        for member in range(3):
            votes += (keys[head] @ queries[head, member].mean(0) * 0.7).softmax(0)
    best = sorted(votes.topk(4).indices.tolist())
    extents = [held(keys[:, :cut]), held(keys[:, cut:], start=cut)]
    found = Tokenselect(budget=4).select(asked(queries, scaling=0.7), extents, 4)
    assert positions_of(found, extents) == [best, best]


def test_heads_that_hold_other_tokens_vote_apart() -> None:
    keys = torch.tensor([[[9.0], [0.0]], [[0.0], [9.0]]])
    apart = replace(held(keys), positions=torch.tensor([[0, 1], [0, 5]], dtype=torch.int32))
    found = Tokenselect(budget=1).select(asked(torch.ones(2, 1, 1, 1)), [apart], 1)
    assert positions_of(found, [apart]) == [[0], [5]]


def test_a_selection_is_used_again_while_queries_stay_alike() -> None:
    keys = torch.eye(4)[None] * 3
    method, memory = Tokenselect(budget=1, similarity=0.9), {}
    extents = [held(keys)]

    def found(query: list[float], reading: bool = False) -> list[int]:
        question = asked(torch.tensor(query).reshape(1, 1, 1, 4), memory=memory, reading=reading)
        return positions_of(method.select(question, extents, 1), extents)[0]

    assert found([1.0, 0.99, 0.0, 0.0]) == [0]
    assert found([0.99, 1.0, 0.0, 0.0]) == [0], "nearly the same query: the old selection"
    assert found([0.99, 1.0, 0.0, 0.0], reading=True) == [1], "while reading every chunk selects anew"
    assert found([0.0, 0.0, 1.0, 0.0]) == [2], "another query"
    longer = [held(keys[:, :2]), held(keys[:, 2:], start=2)]  # the same entries in other extents
    question = asked(torch.tensor([0.0, 0.0, 1.0, 0.1]).reshape(1, 1, 1, 4), memory=memory)
    assert positions_of(method.select(question, longer, 1), longer) == [[2]]
