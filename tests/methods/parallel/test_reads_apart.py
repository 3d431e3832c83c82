"""Texts that are read in pieces: what a piece sees, what is held of it, and how a budget is shared out."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from farspan.errors import BudgetError, PlanError
from farspan.methods.retain.window import Window
from farspan.plan import Plan
from farspan.runtime.apart import shared_out
from farspan.testing.reads import allocated_bytes
from farspan.text import Document
from tests.oracle.composed import templated_pair
from tests.oracle.situations import LONG, MIDDLE, QUESTIONS, SHORT, pair
from tests.test_composition import same

DOCUMENTS = [Document(text=text, source=f"{i}.txt") for i, text in enumerate((LONG, SHORT, MIDDLE))]


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
@pytest.mark.parametrize("order", ["stream(chunk=64)", "layerwise(chunk=64)"])
def test_documents_read_in_pieces_are_documents_read_apart_and_composed(kind: str, order: str) -> None:
    """But for the blank lines between documents, which belong to the piece before."""
    model, _ = templated_pair(kind)
    in_pieces = model.read(DOCUMENTS, f"concat(chunk=1000) | {order}")
    blank = model.prompts.separator().numel()
    spaced = [Document(text=d.text + "\n\n" * (d is not DOCUMENTS[-1]), source=d.source) for d in DOCUMENTS]
    composed = model.compose([model.read(document, order) for document in spaced])
    if torch.equal(in_pieces.token_ids, composed.token_ids):  # a blank line may join the token before it
        assert same(in_pieces._cache, composed._cache, 1e-4)
    assert blank and in_pieces._cache.pieces == composed._cache.pieces


def test_pieces_are_no_longer_than_a_chunk_and_never_cross_documents() -> None:
    model, _ = templated_pair("llama")
    context = model.read(DOCUMENTS, "concat(chunk=50)")
    assert context._cache.pieces is not None
    ranges = context._cache.pieces.ranges
    assert ranges[0][0] == model.prompts.prefix().numel() and ranges[-1][1] == context.seen
    assert all(0 < stop - start <= 50 for start, stop in ranges)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(ranges))
    begins = {start for start, _ in ranges}
    assert all(segment.token_start in begins for segment in context.tokens.segments())


def test_one_piece_that_holds_all_is_a_plain_read() -> None:
    model, _ = templated_pair("llama")
    whole, plain = model.read(DOCUMENTS[0], "concat(chunk=4096)"), model.read(DOCUMENTS[0])
    assert same(whole._cache, plain._cache, 1e-5)
    answers = [c.ask(QUESTIONS[0], max_new_tokens=8).token_ids for c in (whole, plain)]
    assert answers[0] == answers[1]


def test_a_piece_does_not_see_the_others() -> None:
    model, _ = pair("llama")
    context = model.read(DOCUMENTS, "concat(chunk=4096)")
    changed = model.read([Document(text=MIDDLE, source="0.txt"), *DOCUMENTS[1:]], "concat(chunk=4096)")
    for one, other in zip(context._cache.layers, changed._cache.layers, strict=True):
        values = [layer.extents[-1].entries()[1] for layer in (one, other)]
        assert torch.allclose(*values, atol=1e-4), "the last piece is the same, wherever it stands"


@pytest.mark.parametrize(
    "plan",
    ["int8", "snapkv:120(window=8)", "snapkv:60%(window=8) | int8", "h2o:210 | int4(group=16)", "random:64KiB | int8"],
)
@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_a_budget_bounds_all_pieces_together(kind: str, plan: str) -> None:
    model, _ = templated_pair(kind)
    context = model.read(DOCUMENTS, f"{plan} | concat(chunk=100)")
    assert context.cost.repacked == 0
    assert context.held_bytes == allocated_bytes(context._cache)
    assert context.cost.peak_bytes <= context.cost.stated_peak_bytes
    budget = context.plan.budget
    if budget is not None and budget.kind == "bytes":
        assert context.held_bytes <= budget.value
    elif budget is not None:
        allowed = model.layout.budget(context.plan, budget, context.seen)
        assert allowed - len(context._cache.pieces.ranges) <= context.held <= allowed
    assert context.ask(QUESTIONS[0], max_new_tokens=3).usage.seen == context.seen


@pytest.mark.parametrize(
    "plan",
    [
        "concat(chunk=50)",
        "ape(chunk=70) | int8",
        "snapkv:120(window=8) | sinks(chunk=60)",
        "h2o:80% | ape(chunk=90)",
    ],
)
def test_what_a_read_in_pieces_needs_is_foreseen(plan: str) -> None:
    model, _ = templated_pair("llama")
    context = model.read(DOCUMENTS[0], plan)
    foreseen = model.foresee(context.seen, plan)
    assert foreseen.peak_bytes == context.cost.stated_peak_bytes
    assert foreseen.tokens == context.seen and 0.9 < context.held_bytes / foreseen.held_bytes < 1.1
    with pytest.raises(BudgetError, match="pieces, which hold"):
        model.foresee(context.seen, "snapkv:30(window=8) | concat(chunk=20)")


def test_a_budget_that_does_not_hold_every_piece_s_floor_is_refused() -> None:
    model, _ = pair("llama")
    with pytest.raises(BudgetError, match=r"snapkv with budget 30 .* 10 pieces, which hold 120 at least"):
        model.read(DOCUMENTS, "snapkv:30(window=8) | concat(chunk=50)")


def test_an_empty_piece_is_refused_when_the_plan_is_built() -> None:
    with pytest.raises(PlanError, match="concat: chunk=0 holds no token"):
        Plan.parse("concat(chunk=0)")


@given(st.lists(st.integers(1, 300), min_size=1, max_size=8), st.integers(0, 600))
def test_shares_fit_the_budget_and_leave_nobody_below_the_floor(sizes: list[int], entries: int) -> None:
    scorer = Window(sinks=2)
    plan = Plan.parse("window:100(sinks=2)")
    least = [min(size, scorer.floor) for size in sizes]
    if entries < sum(least):
        with pytest.raises(BudgetError, match="Give a larger budget, or larger pieces"):
            shared_out(entries, sizes, scorer, plan)
        return
    shares = shared_out(entries, sizes, scorer, plan)
    assert sum(shares) <= entries
    assert all(low <= share <= size for low, share, size in zip(least, shares, sizes, strict=True))
    assert sum(shares) > min(entries, sum(sizes)) - len(sizes), "no more is left over than rounding explains"
    order = sorted(range(len(sizes)), key=sizes.__getitem__)
    assert [shares[i] for i in order] == sorted(shares), "a longer piece holds no less"
