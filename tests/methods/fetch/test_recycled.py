"""Recycled Attention: full steps by stride or similarity, and what they attended to in between."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from farspan.methods.fetch.recycled import Recycled
from farspan.methods.fetch.tokenselect import Tokenselect
from tests.methods.fetch.held import asked, held, positions_of

pytestmark = pytest.mark.usefixtures("poisoned")
KEYS = torch.eye(4)[None] * 3


def steps(method, queries: list[list[float]], keys: Tensor = KEYS) -> list[list[int] | str]:
    memory, extents, found = {}, [held(keys)], []
    for query in queries:
        question = asked(torch.tensor(query).reshape(1, 1, -1, 4), memory=memory)
        selections = method.select(question, extents, 1)
        whole = all(selection.slots is None for selection in selections)
        found.append("all" if whole else positions_of(selections, extents)[0])
    return found


def test_every_third_step_is_full_and_the_others_read_what_it_attended_to() -> None:
    first, second = [1.0, 0, 0, 0], [0, 1.0, 0, 0]
    queries = [first, second, second, second, first, first, first]
    assert steps(Recycled(budget=1, stride=3), queries) == ["all", [0], [0], "all", [1], [1], "all"]
    # its nearest sibling reads anew whatever the schedule, as soon as the query has changed
    assert steps(Tokenselect(budget=1), queries)[1] == [1]


def test_a_query_unlike_that_of_the_last_full_step_is_a_full_step() -> None:
    near, far = [1.0, 0.3, 0, 0], [0, 1.0, 0, 0]
    queries = [[1.0, 0, 0, 0], near, far, far, near]
    assert steps(Recycled(budget=1, stride=50, similarity=0.8), queries) == ["all", [0], "all", [1], "all"]


def test_a_question_is_a_full_step_and_its_last_token_is_what_counts() -> None:
    question, token = [0, 0, 1.0, 0, 0, 0, 0, 1.0], [1.0, 0, 0, 0]  # two tokens, then one
    assert steps(Recycled(budget=1, stride=50), [question, token, question, token]) == ["all", [3], "all", [3]]


def test_a_stride_of_one_is_full_attention() -> None:
    assert steps(Recycled(budget=1, stride=1), [[1.0, 0, 0, 0]] * 3) == ["all"] * 3
