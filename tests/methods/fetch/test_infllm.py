"""InfLLM: a block is what its most asked-for entries say, for all heads together."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from farspan.methods.fetch.infllm import Infllm
from farspan.methods.fetch.quest import Quest
from tests.methods.fetch.held import asked, held, positions_of

pytestmark = pytest.mark.usefixtures("poisoned")
METHOD = Infllm(budget=2, block=2, representatives=1)


def test_a_block_is_judged_by_the_entry_that_was_asked_for() -> None:
    """The first block has the best key, which nobody asked for; the second one's asked-for entry scores higher."""
    keys = torch.tensor([[9.0], [1.0], [2.0], [0.0]])[None]
    noted = {"asked": torch.tensor([[0.1, 0.8, 0.9, 0.2]])}
    query = torch.ones(1, 1, 1, 1)
    extents = [held(keys, METHOD, noted=noted)]
    assert extents[0].index["means"].flatten().tolist() == [1.0, 2.0]
    assert positions_of(METHOD.select(asked(query), extents, 2), extents) == [[2, 3]]
    pages = [held(keys, Quest(budget=2, page=2))]
    assert positions_of(Quest(budget=2, page=2).select(asked(query), pages, 2), pages) == [[0, 1]]


def test_heads_choose_together() -> None:
    keys = torch.tensor([[[1.0], [1.0], [0.0], [0.0]], [[0.0], [0.0], [3.0], [3.0]]])
    extents = [held(keys, METHOD, noted={"asked": torch.zeros(2, 4)})]
    assert positions_of(METHOD.select(asked(torch.ones(2, 1, 1, 1)), extents, 2), extents) == [[2, 3], [2, 3]]


@given(seed=st.integers(0, 2**31), count=st.integers(1, 17), block=st.integers(1, 5), many=st.integers(1, 6))
def test_the_index_is_the_definition(seed: int, count: int, block: int, many: int) -> None:
    g = torch.Generator().manual_seed(seed)
    keys, noted = torch.randn(2, count, 3, generator=g), torch.randn(2, count, generator=g)
    method = Infllm(budget=block, block=block, representatives=many)
    means = held(keys, method, noted={"asked": noted}).index["means"]
    for head in range(2):
        for number, start in enumerate(range(0, count, block)):
            its = noted[head, start : start + block]
            best = its.topk(min(many, its.numel())).indices + start
            torch.testing.assert_close(means[head, number], keys[head, best].mean(0))
