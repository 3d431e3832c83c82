"""Skipping the deepest layers' attention, by hand: what they hold, what they see, and that the rest is untouched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farspan.cache.sequence import Patterned
from farspan.errors import PlanDoesNotApply, PlanError
from farspan.methods.retain.pyramid import Pyramid
from farspan.methods.retain.shallow import Shallow
from farspan.plan import Plan
from tests.oracle.recording import TOLERANCE, agreement, recording
from tests.oracle.situations import LONG, ORDERS, ask, pair


def shares(entries: int, *, layers: int = 6, floor: int = 20, tokens: int = 1000, skip: float = 0.33) -> list[int]:
    return Shallow(skip=skip).shares(entries, [2] * layers, floor, tokens)


def test_the_deepest_third_holds_the_floor_and_the_others_all_the_rest_alike() -> None:
    """6 layers of 60 entries: 2 keep 20, and 4 share the other 320. PyramidKV lets every layer fall a little."""
    assert shares(60) == [80] * 4 + [20] * 2
    pyramid = Pyramid().shares(60, [2] * 6, 20, 1000)
    assert pyramid == sorted(pyramid, reverse=True) and len(set(pyramid)) == 6


def test_two_thirds_of_the_budget_hold_everything_where_attention_is_left() -> None:
    """The paper's setting: 4 of 6 layers are as they were. What is over goes to the deepest."""
    assert shares(680, tokens=1000) == [1000] * 4 + [40] * 2
    assert shares(900, tokens=1000) == [1000] * 4 + [700] * 2
    assert shares(1000, tokens=1000) == [1000] * 6


def test_at_least_one_layer_is_skipped_and_one_is_not() -> None:
    assert shares(60, layers=2) == [100, 20]
    assert shares(60, layers=2, skip=0.01) == [100, 20] == shares(60, layers=2, skip=0.99)
    assert shares(60, layers=1) == [60]


@given(
    st.lists(st.integers(1, 8), min_size=1, max_size=40),
    st.integers(1, 50),
    st.integers(0, 300),
    st.integers(1, 900),
    st.floats(0.01, 0.99),
)
def test_budgets_and_floors_hold(heads: list[int], floor: int, spare: int, tokens: int, skip: float) -> None:
    entries = floor + spare
    got = Shallow(skip=skip).shares(entries, heads, floor, tokens)
    spent = sum(share * count for share, count in zip(got, heads, strict=True))
    assert spent <= entries * sum(heads) and min(got) >= floor and max(got) <= max(entries, tokens)
    assert spent > entries * sum(heads) - 2 * sum(heads), "no more is left over than rounding explains"


@pytest.mark.parametrize("order", ORDERS)
def test_read_and_held_so_the_deepest_layer_sees_sinks_and_what_is_near(order: str) -> None:
    model, twin = pair("llama")
    with recording() as record:
        plan = f"shallow:70% | snapkv(window=8) | ashape(start=2, sinks=4, window=12) | {order}"
        context = model.read_batch([LONG], plan, trace=True)[0]
        answered = ask(context, "Which port?", "single", tokens=3)[0].context
    assert agreement(twin, record, context, answered) <= TOLERANCE
    counts = [len(view.positions[0]) for view in context.inspect()]
    assert counts[2] < counts[0] == counts[1] == context.seen and counts[2] > 0
    events = [event for event in answered._cache.events.log if isinstance(event, Patterned)]
    assert {event.layer for event in events} == {2}


def test_mistakes_are_said() -> None:
    for skip in (0, 1, -0.5):
        with pytest.raises(PlanError, match="is no share of the layers that leaves some"):
            Plan.parse(f"shallow:10%(skip={skip})")
    with pytest.raises(PlanError, match="start=-1 is no layer"):
        Plan.parse("ashape(start=-1)")
    with pytest.raises(PlanDoesNotApply, match="start=3, and the last of its 3 layers with full attention is 2"):
        pair("llama")[0].read(LONG, "ashape(start=3)")
