"""A text that is read twice: what is fed, and what is known of it."""

from __future__ import annotations

import pytest
import torch

from farspan.errors import PlanError
from farspan.methods.compress.base import Compressor
from farspan.methods.compress.jrt import Jrt
from farspan.plan import Plan
from farspan.testing import check_method
from farspan.text.document import Segment
from tests.oracle.recording import TOLERANCE, agreement, recording
from tests.oracle.situations import MIDDLE, OTHER, ask, pair


@pytest.mark.parametrize("times", [2, 3])
def test_what_is_fed_is_the_whole_text_again_behind_a_separator(times):
    model, twin = pair("llama")
    with recording() as record:
        context = model.read_batch([[MIDDLE, OTHER]], f"jrt(times={times})", trace=True)[0]
        answered = ask(context, "Which port?", "single", tokens=2)[0].context
    once, prefix = model.read([MIDDLE, OTHER]), model.prompts.prefix().int()
    text = once.token_ids[len(prefix) :]
    again = torch.cat([part for _ in range(times - 1) for part in (model.prompts.separator().int(), text)])
    assert torch.equal(context.token_ids, torch.cat([prefix, text, again]))
    assert agreement(twin, record, context, answered) <= TOLERANCE


def test_every_reading_knows_where_its_tokens_stood():
    model, _ = pair("llama")
    once, twice = model.read([MIDDLE, OTHER]), model.read([MIDDLE, OTHER], "jrt")
    ahead = twice.seen - once.seen
    found = 0
    for token in range(once.seen):
        there = once.locate(token)
        for at in (token, token + ahead):
            here = twice.locate(at)
            assert (here is None) == (there is None) or at < ahead
            if here is not None and there is not None:
                found += 1
                assert (here.source, here.start, here.end) == (there.source, there.start, there.end)
    assert found == 2 * sum(once.locate(token) is not None for token in range(once.seen))


def test_costs_are_foreseen_and_a_budget_bounds_both_readings():
    model, _ = pair("llama")
    assert model.foresee(100, "jrt").tokens == 200
    context = model.read(MIDDLE, "jrt | snapkv:40(window=8)")
    assert context.held <= 40 < context.seen


def test_it_differs_from_its_nearest_sibling_in_that_nothing_is_left_out():
    """Compressors read a part of a text in its order; this one reads tokens again that it has read."""
    kept = [s.token_start for s in Jrt().compress(_segments(), None, 99)]
    assert kept == [0, 10, 0, 10] and Jrt().reads(20) == 40
    assert isinstance(Plan.parse("truncate:5").methods[0], Compressor)
    assert [s.token_start for s in Plan.parse("truncate:5").methods[0].compress(_segments(), None, 5)] == [0, 17]


def _segments():
    return [
        Segment(source=f"{i}.txt", document=i, start=0, end=40, token_start=10 * i, token_end=10 * i + 10)
        for i in range(2)
    ]


def test_the_contract():
    check_method("jrt")


@pytest.mark.parametrize(
    ("plan", "why"),
    [("jrt:4096", "takes no budget"), ("jrt(times=1)", "times=1 is no rereading"), ("jrt | truncate:9", "both fill")],
)
def test_values_that_mean_nothing_are_refused(plan, why):
    with pytest.raises(PlanError, match=why):
        Plan.parse(plan)
