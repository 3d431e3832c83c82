"""EM-LLM: events at surprises, refined by a graph of keys, retrieved with their neighbours."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from farspan.methods.fetch._events import modularity, refined, surprises
from farspan.methods.fetch.emllm import Emllm
from farspan.methods.fetch.infllm import Infllm
from tests.methods.fetch.held import asked, held, positions_of

pytestmark = pytest.mark.usefixtures("poisoned")
QUIET = [1.0, 1.2, 0.8, 1.0]


def test_a_surprise_is_a_deviation_above_the_mean_before_it() -> None:
    surprisal = torch.tensor([*QUIET, 3.0, *QUIET, 0.1, float("nan"), 1.0])
    assert surprises(surprisal, window=4, gamma=1.0) == [4]
    assert surprises(surprisal, window=4, gamma=50.0) == []
    assert 10 not in surprises(surprisal, window=4, gamma=-5.0), "what nothing predicted surprises nobody"


@given(st.lists(st.floats(0, 20), min_size=1, max_size=40), st.integers(1, 9), st.floats(0, 3))
def test_surprises_are_the_definition(values: list[float], window: int, gamma: float) -> None:
    surprisal = torch.tensor(values, dtype=torch.float64)
    expected = []
    for at in range(len(values)):
        before = surprisal[max(0, at - window) : at]
        threshold = before.mean() + gamma * before.std(unbiased=False) if before.numel() >= 2 else torch.inf
        if abs(float(surprisal[at] - threshold)) < 1e-6:
            return  # too near to tell
        expected += [at] if surprisal[at] > threshold else []
    assert surprises(surprisal, window, gamma) == expected


def naive_modularity(graph: Tensor, cut: int) -> float:
    total, value = float(graph.sum()), 0.0
    for side in (range(cut), range(cut, len(graph))):
        for i in side:
            for j in side:
                value += float(graph[i, j] - graph[i].sum() * graph[j].sum() / total) / total
    return value


@given(seed=st.integers(0, 2**31), nodes=st.integers(2, 8))
def test_modularity_is_newmans(seed: int, nodes: int) -> None:
    graph = torch.rand(nodes, nodes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    graph = graph + graph.T
    found = modularity(graph)
    for cut in range(nodes):
        assert float(found[cut]) == pytest.approx(naive_modularity(graph, cut), abs=1e-9)


def test_a_boundary_moves_to_where_keys_part() -> None:
    keys = torch.tensor([[1.0, 0.0]] * 5 + [[0.0, 1.0]] * 7)[None]
    assert refined(keys, start=0, boundary=8, shortest=2) == 5
    assert refined(keys, start=0, boundary=8, shortest=6) >= 6, "no event is shorter than the shortest"


def episodes(method, surprisal: Tensor, keys: Tensor):
    noted = {"surprisal": surprisal[None].expand(keys.shape[0], -1), "asked": torch.zeros(keys.shape[:2])}
    return [held(keys, method, noted=noted)]


def test_events_follow_surprise_where_blocks_cut_anywhere() -> None:
    """Six like keys of which every second block of four would take some others along."""
    keys = torch.tensor([[0.0, 1.0]] * 6 + [[1.0, 0.0]] * 6 + [[0.0, 1.0]] * 4)[None]
    surprisal = torch.tensor([1.0, 1.1, 0.9, 1.0, 1.0, 1.0, 9.0, 1.0, 1.1, 0.9, 1.0, 1.0, 12.0, 1.0, 1.1, 0.9])
    method = Emllm(budget=8, shortest=2, longest=8, contiguity=0.0, window=5, refine=False)
    extents = episodes(method, surprisal, keys)
    assert extents[0].index["starts"].tolist() == [[0, 6, 12, 16]]
    query = torch.tensor([1.0, -0.1]).reshape(1, 1, 1, 2)
    found = positions_of(method.select(asked(query), extents, 8), extents)
    assert found == [[6, 7, 8, 9, 10, 11]]
    blocks = Infllm(budget=8, block=4, representatives=1)
    cut = [held(keys, blocks, noted={"asked": torch.zeros(1, 16)})]
    assert positions_of(blocks.select(asked(query), cut, 8), cut) != found


def test_neighbours_of_what_was_retrieved_come_along() -> None:
    keys = torch.tensor([[0.0], [0.0], [0.1], [0.1], [9.0], [9.0], [0.0], [0.0], [5.0], [5.0]])[None]
    surprisal = torch.tensor([1.0, 1.0, 5.0, 1.0, 9.0, 1.0, 9.0, 1.0, 20.0, 1.0])
    plain = Emllm(budget=4, shortest=2, longest=4, contiguity=0.0, window=4, gamma=0.5, refine=False)
    beside = Emllm(budget=6, shortest=2, longest=4, contiguity=0.5, window=4, gamma=0.5, refine=False)
    query = torch.ones(1, 1, 1, 1)
    extents = episodes(plain, surprisal, keys)
    assert extents[0].index["starts"].tolist() == [[0, 2, 4, 6, 8, 10]]
    assert positions_of(plain.select(asked(query), extents, 4), extents) == [[4, 5, 8, 9]]
    assert positions_of(beside.select(asked(query), extents, 6), extents) == [[2, 3, 4, 5]]


@given(seed=st.integers(0, 2**31), count=st.integers(1, 60), refine=st.booleans(), known=st.booleans())
def test_events_are_neither_shorter_nor_longer_than_allowed(seed: int, count: int, refine: bool, known: bool) -> None:
    g = torch.Generator().manual_seed(seed)
    method = Emllm(budget=40, shortest=3, longest=12, window=6, refine=refine)
    surprisal = torch.rand(count, generator=g) * 5 if known else torch.full((count,), torch.nan)
    (extent,) = episodes(method, surprisal, torch.randn(2, count, 4, generator=g))
    sizes = extent.index["starts"].diff(dim=-1)
    assert int(extent.index["starts"][0, -1]) == count and bool((sizes <= 12).all())
    assert bool((sizes[:, :-1] >= 3).all())
