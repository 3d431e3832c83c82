"""Fetched attention is one masked softmax with log-weights, by every route, over extents of every kind."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from farspan.attention import Rows, attend, backend, native
from farspan.attention.fetched import Chosen, Gather
from farspan.cache import DenseBlock, Extent, GroupBlock, LayerCache, LowRankBlock

ROUTES = ["naive", "torch", *(["native"] if native.available() is None else [])]
pytestmark = pytest.mark.usefixtures("poisoned")


@pytest.fixture(params=ROUTES)
def route(request, monkeypatch):
    monkeypatch.setenv("FARSPAN_KERNELS", request.param)
    backend.cache_clear()
    yield request.param
    backend.cache_clear()


@dataclass
class Fixed:
    """Chooses what it was told to, and notes what it was asked with."""

    runs: list[Chosen]
    asked: list[Tensor] = field(default_factory=list)

    def choose(self, query: Tensor, scaling: float) -> list[Chosen]:
        self.asked.append(query)
        return self.runs


def block_of(kind: str, keys: Tensor, values: Tensor, counts: tuple[int, ...]):
    match kind:
        case "dense":
            return DenseBlock(keys, values)
        case "lowrank":
            return LowRankBlock.pack(keys, values, counts, 4, chunk=4, outliers=1)
    return GroupBlock.pack(keys, values, counts, 16, bits=int(kind), value_group=None if kind == "8" else 16)


def made(draw, g: torch.Generator, kind: str, heads: int, group: int, tokens: int) -> tuple[Rows, Tensor, Tensor]:
    """-> a row that fetches, its query, and what the definition says of it."""
    size, ragged = 16, draw(st.booleans())
    layer, at = LayerCache(0), 0
    runs = list(pairwise(sorted({0, tokens, *draw(st.lists(st.integers(0, tokens), max_size=2))})))
    for _ in range(draw(st.integers(1, 3))):
        longest = draw(st.sampled_from([1, 7, 70, 300]))
        counts = tuple(draw(st.integers(1, longest)) if ragged else longest for _ in range(heads))
        keys, values = (torch.randn(sum(counts), size, generator=g) for _ in range(2))
        offsets = [0]
        for n in counts:
            offsets.append(offsets[-1] + n)
        positions = torch.cat([torch.arange(at, at + n, dtype=torch.int32) for n in counts])
        extent = Extent(block_of(kind, keys, values, counts), positions, tuple(offsets), shared=False)
        layer.extents = (*layer.extents, extent)
        at += longest
    tail = draw(st.integers(0, 3))
    newest = (torch.randn(heads, tail + tokens, size, generator=g) for _ in range(2))
    layer.tail.append(*newest, at)
    query = torch.randn(heads * group, tokens, size, generator=g)
    weighted, masks = draw(st.booleans()), {}
    for e, extent in enumerate(layer.extents):
        for run in runs:
            if draw(st.integers(0, 4)) == 0:
                masks[run, e] = (Gather(extent), [torch.ones(n, dtype=torch.bool) for n in extent.counts], None)
                continue
            bits = [torch.rand(n, generator=g) < draw(st.sampled_from([0.0, 0.1, 0.6])) for n in extent.counts]
            slots = tuple(each.nonzero()[:, 0] for each in bits)
            weights = tuple(torch.rand(s.numel(), generator=g) * 3 for s in slots) if weighted else None
            masks[run, e] = (Gather(extent, slots, weights), bits, weights)
    chosen = [Chosen(*run, [masks[run, e][0] for e in range(len(layer.extents))]) for run in runs]
    out = torch.zeros(tokens, heads * group, size, dtype=torch.float64)
    for q in range(heads * group):
        head = q // group
        for t in range(tokens):
            run = next((a, b) for a, b in runs if a <= t < b)
            keys, values, raised = [], [], []
            for e, extent in enumerate(layer.extents):
                _, bits, weights = masks[run, e]
                k, v = extent.block.unpack(extent.offsets[head], extent.offsets[head + 1])
                keys.append(k[bits[head]])
                values.append(v[bits[head]])
                raised.append(torch.zeros(len(keys[-1])) if weights is None else weights[head])
            end = tail + t + 1
            keys.append(layer.tail.keys[head, :end])
            values.append(layer.tail.values[head, :end])
            raised.append(torch.zeros(end))
            scores = torch.cat(keys).double() @ query[q, t].double() * 0.3 + torch.cat(raised).double()
            out[t, q] = scores.softmax(0) @ torch.cat(values).double()
    return Rows(layer, 0, tokens, fetch=Fixed(chosen)), query, out


@st.composite
def problems(draw):
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    heads, group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    kind = draw(st.sampled_from(["dense", "8", "4", "lowrank"]))
    made_rows = [made(draw, g, kind, heads, group, draw(st.integers(1, 6))) for _ in range(draw(st.integers(1, 2)))]
    return made_rows


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=40)
@given(problem=problems())
def test_what_is_fetched_is_one_softmax(route: str, problem) -> None:
    rows, start = [], 0
    for row, _, _ in problem:
        rows.append(row._replace(start=start))
        start += row.length
    out = attend(torch.cat([query for _, query, _ in problem], 1), rows, 0.3)
    torch.testing.assert_close(out.double(), torch.cat([want for *_, want in problem]), atol=2e-5, rtol=2e-5)


def test_a_row_that_fetches_goes_with_one_that_does_not(route: str) -> None:
    g = torch.Generator().manual_seed(0)
    layers = []
    for _ in range(2):
        layer = LayerCache(0)
        layer.tail.append(torch.randn(2, 40, 16, generator=g), torch.randn(2, 40, 16, generator=g), 0)
        layer.seal_tail(None)
        layer.tail.append(torch.randn(2, 3, 16, generator=g), torch.randn(2, 3, 16, generator=g), 40)
        layers.append(layer)
    query = torch.randn(4, 6, 16, generator=g)
    few = tuple(torch.tensor([1, 5, 30]) for _ in range(2))
    fetches = Fixed([Chosen(0, 3, [Gather(layers[1].extents[0], few)])])
    both = [Rows(layers[0], 0, 3), Rows(layers[1], 3, 3, fetch=fetches)]
    out = attend(query, both, 0.3)
    alone = attend(query[:, :3], both[:1], 0.3)
    other = attend(query[:, 3:], [both[1]._replace(start=0)], 0.3)
    torch.testing.assert_close(out, torch.cat([alone, other]))
    assert torch.equal(fetches.asked[0], query[:, 3:]), "a chooser sees its own sequence's queries"


def test_a_gather_of_nothing_is_not_one_of_everything(route: str) -> None:
    layer = LayerCache(0)
    layer.tail.append(torch.randn(1, 5, 16), torch.full((1, 5, 16), math.nan), 0)
    layer.seal_tail(None)
    layer.tail.append(torch.randn(1, 1, 16), torch.ones(1, 1, 16), 5)
    none = (torch.empty(0, dtype=torch.int64),)
    row = Rows(layer, 0, 1, fetch=Fixed([Chosen(0, 1, [Gather(layer.extents[0], none)])]))
    torch.testing.assert_close(attend(torch.randn(1, 1, 16), [row], 0.3), torch.ones(1, 1, 16))
