"""Lines of the observed map that a head shows go on beyond it."""

from __future__ import annotations

import pytest
import torch

from farspan.cache import LayerCache
from farspan.cache.sequence import Patterned
from farspan.errors import PlanError
from farspan.methods.prefill.base import Chunk
from farspan.methods.prefill.dam import Dam
from farspan.methods.prefill.verticalslash import Verticalslash
from farspan.plan import Plan
from farspan.testing import check_method
from tests.oracle.recording import TOLERANCE, agreement, recording
from tests.oracle.situations import KINDS, LONG, MIDDLE, ORDERS, ask, pair

TINY = "dam(capture=40, threshold=0.15, match=0.3, sinks=2, window=3)"


def chunks(queries: torch.Tensor, keys: torch.Tensor, size: int, began: int = 0) -> list[Chunk]:
    """queries [Hq, N, D], keys [H, N, D] as the chunks that a reader would make of them, with one memory."""
    layer, memory, found = LayerCache(1), {}, []
    for start in range(0, keys.shape[1], size):
        span = slice(start, start + size)
        layer.tail.append(keys[:, span], keys[:, span].clone(), start)
        asked = queries[:, span]
        held = layer.fork()
        found.append(
            Chunk(
                layer=1, layers=2, heads=len(keys), start=start, total=keys.shape[1], queries=asked, scaling=1.0,
                held=held, began=began, memory=memory,
            )
        )  # fmt: skip
    return found


def test_the_level_is_the_threshold_taken_back():
    """sqrt(A) runs from 0.001 (A = 1e-6) to 1: a threshold of 0.1 is sqrt(A) = 0.1009, A = 0.01018."""
    assert Dam(threshold=0.1, exponent=0.5).level == pytest.approx(0.1009**2)
    assert Dam(threshold=0.5, exponent=0.0).level == pytest.approx(1e-3)
    assert Dam(threshold=0.25, exponent=1.0).level == pytest.approx(0.25, abs=1e-5)


@pytest.mark.parametrize("size", [1, 5, 8, 16])
def test_a_head_keeps_the_column_and_the_diagonal_that_it_showed(size):
    """Sixteen tokens observed: head 0 looks at key 3 and half a dozen tokens back, head 1 at itself alone.

    Keys are unit vectors. A query of 20 times two of them pays each one half.
    """
    eye = torch.eye(32)
    queries = torch.zeros(2, 32, 32)
    queries[1] = 20 * eye
    for at in range(32):
        queries[0, at] = 20 * (eye[3] * (at >= 3) + eye[max(0, at - 6)])
    method = Dam(capture=16, threshold=0.4, exponent=1.0, match=0.9, sinks=1, window=2)
    made = [(c.start, method.pattern(c)) for c in chunks(queries, eye[None].repeat(2, 1, 1), size)]
    assert all(found is None for start, found in made if start < 16)
    later = [found for start, found in made if start >= 16]
    for found in later:
        assert found is not None
        line, alone = found.heads
        assert line.columns is not None and (line.columns.tolist(), line.bands) == ([3], ((6, 7),))
        assert alone.columns is not None and (alone.columns.tolist(), alone.bands) == ([], ())
    # vertical-slash asks the end of each chunk: head 1, which looks at nothing, is given as many lines as head 0
    asked = Verticalslash(columns=1, slashes=1, width=1, sinks=1, window=2, queries=4)
    found = asked.pattern(chunks(queries, eye[None].repeat(2, 1, 1), 16)[1])
    assert found is not None and len(found.heads[1].bands) == 1


def test_lines_that_were_hardly_seen_do_not_count():
    """Every query looks at its own key; the last columns of the square have one or two pairs, all of them matched."""
    eye = torch.eye(48)
    method = Dam(capture=24, threshold=0.4, exponent=1.0, sinks=0, window=1)
    made = [method.pattern(c) for c in chunks(20 * eye[None], eye[None], 24)]
    assert made[1] is not None and made[1].heads[0].columns is not None
    assert made[1].heads[0].columns.tolist() == []


def test_it_keeps_the_contract_where_it_hides_something():
    check_method(Plan.parse(TINY).methods[0])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mistral"])
def test_what_was_seen_is_what_was_noted(kind, order):
    model, twin = pair(kind)
    order = order.replace("64", "20")
    with recording() as record:
        context = model.read_batch([LONG], f"{TINY} | {order} | int8", trace=True)[0]
        longer = context.append(MIDDLE[:120], probe="Which port?")
        answered = ask(longer, "Which port?", "single", tokens=2)[0].context
    assert agreement(twin, record, context, longer, answered) <= TOLERANCE
    noted = [event for event in longer._cache.events.log if isinstance(event, Patterned)]
    first = min(event.time for event in noted)
    assert 40 <= first < 60
    appended = [event.time for event in noted if event.time >= context.seen]
    assert not appended or min(appended) >= context.seen + 40, "what is appended is observed anew"
    lines = [s for event in noted for s in event.pattern.heads if s.bands or len(s.columns)]
    assert lines, "heads of the fixture look somewhere"


def test_a_text_no_longer_than_what_is_observed_is_read_densely():
    model, _ = pair("llama")
    dense, seen = model.read(LONG), model.read(LONG, "dam")
    for one, two in zip(seen._cache.layers, dense._cache.layers, strict=True):
        for mine, its in zip(one.extents, two.extents, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(mine.entries(), its.entries(), strict=True))


@pytest.mark.parametrize(
    "value", ["capture=0", "threshold=0", "threshold=1.5", "match=0", "exponent=-1", "window=0", "sinks=-1"]
)
def test_values_that_mean_nothing_are_refused(value):
    with pytest.raises(PlanError, match=value):
        Plan.parse(f"dam({value})")
