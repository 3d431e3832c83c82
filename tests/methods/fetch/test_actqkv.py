"""ActQKV: unusual queries ask, cosine ranks, and layers share what they may read."""

from __future__ import annotations

import pytest
import torch

from farspan.methods.fetch.actqkv import Actqkv, _entropy, _share
from farspan.methods.fetch.infllm import Infllm
from tests.methods.fetch.held import asked, held, positions_of

pytestmark = pytest.mark.usefixtures("poisoned")
KEYS = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])[None]
NOTED = {"asked": torch.zeros(1, 4)}


def test_the_unusual_query_of_a_window_decides() -> None:
    """Four queries alike and one apart: their mean asks for the first block, the activation bias for the second."""
    queries = torch.tensor([[1.0, 0.0]] * 4 + [[0.0, 1.5]]).reshape(1, 1, 5, 2)
    found = []
    for method in (Infllm(budget=2, block=2), Actqkv(budget=2, block=2)):
        extents = [held(KEYS, method, noted=NOTED)]
        found.append(positions_of(method.select(asked(queries, reading=True), extents, 2), extents))
    assert found == [[[0, 1]], [[2, 3]]]


def test_the_bias_is_against_all_queries_before() -> None:
    """What is usual by now counts little, though it is apart within its own window."""
    method, memory = Actqkv(budget=2, block=2), {}
    extents = [held(KEYS, method, noted=NOTED)]
    usual = torch.tensor([[0.0, 1.0], [0.0, 1.1], [0.0, 0.9]] * 30).reshape(1, 1, -1, 2)
    method.select(asked(usual, reading=True, memory=memory), extents, 2)
    window = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]).reshape(1, 1, 3, 2)
    assert positions_of(method.select(asked(window, reading=True, memory=memory), extents, 2), extents) == [[0, 1]]


def test_blocks_rank_by_angle_not_by_length() -> None:
    keys = torch.tensor([[9.0, 9.0], [9.0, 9.0], [1.0, 0.0], [1.0, 0.0]])[None]
    query = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    by_angle, by_product = Actqkv(budget=2, block=2), Infllm(budget=2, block=2)
    one, two = [held(keys, by_angle, noted=NOTED)], [held(keys, by_product, noted=NOTED)]
    assert positions_of(by_angle.select(asked(query), one, 2), one) == [[2, 3]]
    assert positions_of(by_product.select(asked(query), two, 2), two) == [[0, 1]]


def test_entropy_is_a_share_of_the_largest() -> None:
    assert _entropy(torch.zeros(2, 8)) == pytest.approx(1.0)
    assert _entropy(torch.tensor([[50.0, 0.0, 0.0]])) == pytest.approx(0.0, abs=1e-6)


def test_layers_share_by_mean_entropy_and_spend_no_more_than_all_have() -> None:
    turn: dict = {}
    steps = [[_share(turn, (layer, 0), h, 100, 10) for layer, h in enumerate((0.9, 0.3, 0.3))] for _ in range(3)]
    assert steps[0] == [100, 100, 100], "until all layers are known each has its own"
    assert steps[1] == [180, 60, 60] and sum(steps[2]) == 300
    greedy: dict = {}
    for _ in range(2):
        shares = [_share(greedy, (layer, 0), h, 100, 10) for layer, h in enumerate((0.9, 0.0, 0.0, 0.0))]
    assert shares[0] == 200, "no layer reads more than twice the budget"
