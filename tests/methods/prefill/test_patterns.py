"""What patterns that go by layer and position alone make of a read, and how they are refused."""

from __future__ import annotations

import pytest
import torch

import farspan
from farspan.cache import Events, LayerCache
from farspan.cache.sequence import Patterned
from farspan.errors import PlanDoesNotApply, PlanError
from farspan.methods.prefill.ashape import Ashape
from farspan.methods.prefill.trianglemix import Trianglemix
from farspan.plan import Plan
from farspan.runtime.prefilling import Prefilling
from farspan.testing import check_method
from tests.oracle.recording import TOLERANCE, agreement, recording
from tests.oracle.situations import LONG, MIDDLE, ask, pair

TINY = {
    "ashape": "ashape(sinks=2, window=9)",
    "trianglemix": "trianglemix(start=1, sinks=2, window=9, last=5)",
}


def patterns(context) -> list[Patterned]:
    return [event for event in context._cache.events.log if isinstance(event, Patterned)]


def read(plan: str, text: str = LONG, **options):
    model, _ = pair("llama")
    return model.read_batch([text], plan, trace=True, **options)[0]


def shown(event: Patterned, head: int = 0) -> list[str]:
    """One row per query of the event: # for the keys it sees."""
    at, keys = torch.arange(event.time, event.stop), torch.arange(event.stop)
    seen = event.pattern.sight(head).sees(at, keys)
    since = event.pattern.dense_from
    if since is not None:
        seen |= (at[:, None] >= since) & (keys <= at[:, None])
    return ["".join("#" if yes else "." for yes in row) for row in seen.tolist()]


def test_the_triangle_is_an_a_shape_with_a_side():
    """Twelve tokens in two chunks; sinks 1, window 3, the last 2 rows dense."""
    model, _ = pair("llama")
    ids = model.tokenizer("The gateway listens on port 8443", add_special_tokens=False).input_ids
    text = model.tokenizer.decode(ids[: 12 - model.prompts.prefix().numel()])
    a = read("ashape(sinks=1, window=3) | stream(chunk=6)", text)
    t = read("trianglemix(start=2, sinks=1, window=3, last=2) | stream(chunk=6)", text)
    assert a.seen == t.seen == 12
    assert [(e.layer, e.time, e.stop) for e in patterns(a)] == [(i, s, s + 6) for s in (0, 6) for i in range(3)]
    assert [(e.layer, e.time, e.stop) for e in patterns(t)] == [(2, 0, 6), (2, 6, 12)]
    first = ["#.....", "##....", "###...", "####..", "#.###.", "#..###"]
    assert shown(patterns(a)[0]) == shown(patterns(t)[0]) == first
    band = ["#...###.....", "#....###....", "#.....###...", "#......###..", "#.......###.", "#........###"]
    assert shown(patterns(a)[-1]) == band
    assert shown(patterns(t)[-1]) == [*band[:4], "###########.", "############"]


@pytest.mark.parametrize("name", TINY)
def test_it_keeps_the_contract_where_it_hides_something(name):
    check_method(Plan.parse(TINY[name]).methods[0])


@pytest.mark.parametrize("order", ["stream(chunk=64)", "layerwise(chunk=64)"])
@pytest.mark.parametrize("kind", ["llama", "gemma3", "gpt2"])
def test_where_everything_is_shown_it_is_the_dense_read(kind, order):
    model, _ = pair(kind)
    dense = model.read(LONG, order)
    for plan in ("ashape(sinks=0, window=500)", "trianglemix(start=0, sinks=500, window=1)"):
        shown = model.read(LONG, f"{plan} | {order}")
        for one, two in zip(shown._cache.layers, dense._cache.layers, strict=True):
            for mine, its in zip(one.extents, two.extents, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(mine.entries(), its.entries(), strict=True))


@pytest.mark.parametrize("chunk", [1, 3, 7, 64, 500])
@pytest.mark.parametrize("name", TINY)
def test_chunks_need_not_be_as_long_as_the_window(name, chunk):
    _, twin = pair("llama")
    with recording() as record:
        context = read(f"{TINY[name]} | stream(chunk={chunk})", MIDDLE[:160])
        answered = ask(context, "Which port?", "single", tokens=2)[0].context
    assert agreement(twin, record, context, answered) <= TOLERANCE


def test_the_rows_of_a_probe_see_everything():
    """Ten tokens of text and three that are lent, at positions 20 to 32."""
    layer, events = LayerCache(1), Events()
    layer.tail.append(torch.randn(2, 33, 8), torch.randn(2, 33, 8), 0)
    for method, text in ((Ashape(sinks=2, window=4), None), (Trianglemix(sinks=2, window=4, last=2), 98)):
        prefilling = Prefilling(method, layers=3, total=100)
        query = torch.randn(4, 13, 8)
        lent = prefilling.pattern(layer, query, 20, 3, 0.3, events)
        alone = prefilling.pattern(layer, query[:, :10], 20, 0, 0.3, None)
        assert lent and alone
        assert (lent.dense_from, alone.dense_from) == (30, text)
        noted = events.log[-1]
        assert isinstance(noted, Patterned) and (noted.time, noted.stop, noted.pattern.dense_from) == (20, 30, text)


def test_the_end_of_what_is_appended_is_dense_too():
    context = read(f"{TINY['trianglemix']} | stream(chunk=64)")
    assert {e.pattern.dense_from for e in patterns(context)} == {context.seen - 5}
    longer = context.append(MIDDLE)
    assert {e.pattern.dense_from for e in patterns(longer)} == {context.seen - 5, longer.seen - 5}


def test_half_the_layers_are_deep_unless_said():
    assert {e.layer for e in patterns(read("trianglemix(window=9)"))} == {1, 2}


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        ("ashape(window=0)", "window=0 leaves a token nothing to see"),
        ("ashape(sinks=-1)", "sinks=-1 is fewer than none"),
        ("trianglemix(window=-3)", "window=-3 leaves"),
        ("trianglemix(start=-1)", "start=-1 is no layer"),
        ("trianglemix(last=0)", "last=0 leaves no side"),
        ("ashape | trianglemix", "both fill the slot 'prefill'"),
    ],
)
def test_values_that_mean_nothing_are_refused_when_the_plan_is_built(plan, why):
    with pytest.raises(PlanError, match=why):
        Plan.parse(plan)


def test_a_triangle_that_begins_below_the_last_layer_is_refused():
    with pytest.raises(PlanDoesNotApply, match="start=3, and the last of its 3 layers with full attention is 2"):
        read("trianglemix(start=3)")


def test_layers_with_a_window_of_their_own_keep_it():
    """Of tiny gemma3's three layers, the one in the middle has full attention."""
    model, _ = pair("gemma3")
    context = model.read_batch([LONG], TINY["ashape"], trace=True)[0]
    assert {event.layer for event in patterns(context)} == {1}
    with pytest.raises(PlanDoesNotApply, match="start=2, and the last"):
        model.read(LONG, "trianglemix(start=2)")


def test_a_context_goes_on_as_any_other(tmp_path):
    model = farspan.load("reference")
    context = model.read("The code of the archive is 4711. " * 8, "ashape(window=64) | int8")
    path = context.save(tmp_path / "read.ctx")
    assert model.open(path).ask("What is the code of the archive?", max_new_tokens=8).text == (
        context.ask("What is the code of the archive?", max_new_tokens=8).text
    )
