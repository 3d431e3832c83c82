"""Which columns and diagonals a chunk's last queries choose."""

from __future__ import annotations

import pytest
import torch

from farspan.cache import LayerCache
from farspan.cache.sequence import Patterned
from farspan.errors import PlanError
from farspan.methods.prefill.base import Chunk
from farspan.methods.prefill.trianglemix import Trianglemix
from farspan.methods.prefill.verticalslash import Verticalslash
from farspan.plan import Plan
from farspan.testing import check_method
from tests.oracle.recording import TOLERANCE, agreement, recording
from tests.oracle.situations import KINDS, LONG, MIDDLE, ORDERS, ask, pair

TINY = "verticalslash(columns=6, slashes=2, width=4, sinks=2, window=3, queries=5)"


def chunk_of(queries: torch.Tensor, keys: torch.Tensor, start: int) -> Chunk:
    """queries [Hq, T, D] from position `start` on, keys [H, N, D]."""
    layer = LayerCache(1)
    layer.tail.append(keys, keys.clone(), 0)
    return Chunk(
        layer=1,
        layers=2,
        heads=keys.shape[0],
        start=start,
        total=start + queries.shape[1],
        queries=queries,
        scaling=1.0,
        held=layer,
    )


def test_one_head_looks_at_a_column_and_the_other_back_by_a_distance():
    """Head 0's last queries all want key 7; head 1's want the key ten tokens before their own.

    Keys are unit vectors of their own directions, so a query that is 20 times one of them attends to it alone.
    """
    keys = torch.eye(32)[None].repeat(2, 1, 1)
    queries = torch.zeros(2, 8, 32)
    queries[0, -4:, 7] = 20.0
    for row in range(4, 8):
        queries[1, row, 24 + row - 10] = 20.0
    chunk = chunk_of(queries, keys, 24)
    found = Verticalslash(columns=1, slashes=1, width=2, sinks=1, window=2, queries=4).pattern(chunk)
    assert found is not None and found.dense_from is None
    column, slash = found.heads
    assert column.columns is not None and column.columns.tolist() == [7]
    assert slash.bands == ((10, 12),)
    # nobody else of the family sees them: what is far is far, wherever somebody looks
    triangle = Trianglemix(start=0, sinks=1, window=2, last=1).pattern(chunk)
    assert triangle is not None
    asking, to = torch.arange(24, 31), torch.arange(32)
    assert found.sight(0).sees(asking, to)[:, 7].all() and not triangle.sight(0).sees(asking, to)[:, 7].any()


def test_bands_that_touch_are_one_and_columns_come_in_order():
    method = Verticalslash(columns=3, slashes=3, width=4, sinks=2, window=5)
    by_distance = torch.zeros(1, 30)
    by_distance[0, [6, 10, 24]] = torch.tensor([1.0, 2.0, 3.0])  # of bands 5-8, 9-12 and 21-24
    assert method._bands(by_distance) == [((5, 13), (21, 25))]
    by_key = torch.zeros(1, 30)
    by_key[0, [0, 1, 9, 4, 20]] = torch.tensor([9.0, 9.0, 2.0, 3.0, 1.0])  # two are sinks
    assert [its.tolist() for its in method._columns(by_key)] == [[4, 9, 20]]


def test_it_keeps_the_contract_where_it_hides_something():
    check_method(Plan.parse(TINY).methods[0])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mistral"])
def test_what_was_seen_is_what_was_noted(kind, order):
    model, twin = pair(kind)
    for plan in (TINY, f"{TINY} | snapkv:40(window=8) | int8"):
        with recording() as record:
            context = model.read_batch([LONG], f"{plan} | {order}", trace=True)[0]
            longer = context.append(MIDDLE[:120], probe="Which port?")
            answered = ask(longer, "Which port?", "single", tokens=2)[0].context
        assert agreement(twin, record, context, longer, answered) <= TOLERANCE
    log = longer._cache.events.log
    noted = [event for event in log if isinstance(event, Patterned)]
    assert noted and all(len(event.pattern.heads) == model.layout.layers[event.layer].heads for event in noted)


@pytest.mark.parametrize("chunk", [2, 7, 64])
def test_chunks_may_be_shorter_than_what_is_asked(chunk):
    model, twin = pair("llama")
    with recording() as record:
        context = model.read_batch([MIDDLE[:120]], f"{TINY} | stream(chunk={chunk})", trace=True)[0]
    assert agreement(twin, record, context) <= TOLERANCE


def test_a_text_that_would_be_seen_whole_is_read_densely():
    model, _ = pair("llama")
    dense, shown = model.read(LONG), model.read(LONG, "verticalslash(columns=400)")
    for one, two in zip(shown._cache.layers, dense._cache.layers, strict=True):
        for mine, its in zip(one.extents, two.extents, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(mine.entries(), its.entries(), strict=True))


@pytest.mark.parametrize("value", ["columns=-1", "slashes=-1", "width=0", "queries=0", "window=0", "sinks=-1"])
def test_values_that_mean_nothing_are_refused(value):
    with pytest.raises(PlanError, match=value):
        Plan.parse(f"verticalslash({value})")
