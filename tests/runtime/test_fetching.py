"""What fetching promises of a context: nothing is lost, its index goes where its entries go, mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from farspan.errors import BudgetError, PlanDoesNotApply, PlanError
from farspan.plan import Plan
from farspan.testing import allocated_bytes
from tests.oracle.situations import LONG, OTHER, QUESTIONS, ask, pair

INDEXED = "quest:32(page=8, recent=8)"


def test_everything_fetched_is_full_attention() -> None:
    model, _ = pair("llama")
    full, fetched = (model.read(LONG, plan) for plan in ("full", "topk:100000(recent=0, read=true)"))
    assert ask(fetched, QUESTIONS[0], "single")[0].token_ids == ask(full, QUESTIONS[0], "single")[0].token_ids


def test_nothing_is_lost() -> None:
    model, _ = pair("llama")
    context = model.read(LONG, "topk:1(recent=0, sinks=0)")
    answered = ask(context, QUESTIONS[0], "single")[0].context
    assert context.held == context.seen and answered.held == answered.seen > context.seen


@pytest.mark.parametrize("plan", [INDEXED, INDEXED + " | int8", INDEXED + " | adakv:60 | snapkv(window=8)"])
def test_an_index_counts_and_is_saved_with_its_entries(plan: str, tmp_path: Path) -> None:
    model, _ = pair("llama")
    context = model.read(LONG, plan)
    assert all(extent.index is not None for layer in context._cache.layers for extent in layer.extents)
    assert context.held_bytes == allocated_bytes(context._cache)
    index = sum(extent.index.nbytes for layer in context._cache.layers for extent in layer.extents)
    assert index > 0 and context.cost.peak_bytes <= context.cost.stated_peak_bytes
    context.save(tmp_path / "book.ctx")
    opened = model.open(tmp_path / "book.ctx")
    assert opened.held_bytes == context.held_bytes, "what an index will take counts before it is read"
    for layer, before in zip(opened._cache.layers, context._cache.layers, strict=True):
        for extent, other in zip(layer.extents, before.extents, strict=True):
            assert extent.index is not None and other.index is not None and extent.index.key == other.index.key
            mine, its = extent.index.tensors(), other.index.tensors()
            assert mine.keys() == its.keys() and all(torch.equal(mine[name], its[name]) for name in mine)
    assert opened.held_bytes == context.held_bytes
    assert ask(opened, QUESTIONS[0], "single")[0].token_ids == ask(context, QUESTIONS[0], "single")[0].token_ids
    assert opened.held_bytes == allocated_bytes(opened._cache)


def test_an_index_grows_with_the_conversation() -> None:
    model, _ = pair("llama")
    context = model.read(LONG, INDEXED)
    longer = context.append(OTHER)
    for turn in range(3):
        longer = ask(longer, QUESTIONS[turn], "single", tokens=60)[0].context
    assert len(longer._cache.layers[0].extents) > 1
    assert all(extent.index is not None for layer in longer._cache.layers for extent in layer.extents)
    assert longer.held_bytes == allocated_bytes(longer._cache)


def test_forks_share_one_index() -> None:
    model, _ = pair("llama")
    context = model.read(LONG, INDEXED)
    fork = context.fork()
    first, second = (c._cache.layers[0].extents[0] for c in (context, fork))
    assert first is second and first.index is not None


def test_another_methods_index_is_made_anew() -> None:
    model, _ = pair("llama")
    context = model.read(LONG, INDEXED)
    other = context._with(context._cache.fork(), plan=Plan.parse("quest:32(page=4, recent=8)"))
    again = model.read(LONG, "quest:32(page=4, recent=8)")
    assert ask(other, QUESTIONS[0], "single")[0].token_ids == ask(again, QUESTIONS[0], "single")[0].token_ids


NOTED = "infllm:32(block=8, recent=8, sinks=2, read=false)"


@pytest.mark.parametrize(
    ("read", "plan"),
    [
        ("full", INDEXED),
        (INDEXED, "full"),
        (INDEXED, "magicpig:16(recent=8)"),
        ("int8", INDEXED + " | int8"),
        ("snapkv:60(window=8)", INDEXED + " | snapkv:60(window=8)"),
        ("adakv:60 | snapkv(window=8)", "topk:9(recent=8) | adakv:60 | snapkv(window=8)"),
        (NOTED, NOTED.replace("32", "64")),
    ],
)
def test_a_context_under_another_plan_is_that_plans_own(read: str, plan: str, tmp_path: Path) -> None:
    model, _ = pair("llama")
    first, own = model.read(LONG, read), model.read(LONG, plan)
    before, asked = first.held_bytes, ask(first, QUESTIONS[0], "single")[0]
    other = first.under(plan)
    assert other.plan == own.plan and other.held_bytes == own.held_bytes == allocated_bytes(other._cache)
    assert other.cost.peak_bytes >= other.held_bytes and other.cost.seconds > first.cost.seconds
    theirs = ask(own, QUESTIONS[0], "single")[0]
    answers = [ask(other, QUESTIONS[0], "single")[0]]
    other.save(tmp_path / "other.ctx")
    answers += [ask(each, QUESTIONS[0], "single")[0] for each in (model.open(tmp_path / "other.ctx"), other)]
    assert [a.token_ids for a in answers] == [theirs.token_ids] * 3
    assert answers[0].context.held_bytes == theirs.context.held_bytes
    assert first.held_bytes == before, "what was read keeps its own index"
    assert ask(first, QUESTIONS[0], "single")[0].token_ids == asked.token_ids


def test_storage_is_shared_between_plans_and_turns_go_on() -> None:
    model, _ = pair("llama")
    context, pieces = model.read(LONG, "int8 | topk:20(recent=8)"), INDEXED + " | concat(chunk=64)"
    turn = ask(context, QUESTIONS[0], "single", tokens=140)[0].context
    other = turn.under("int8 | " + INDEXED)
    for mine, its in zip(turn._cache.layers, other._cache.layers, strict=True):
        assert all(a.block is b.block for a, b in zip(mine.extents, its.extents, strict=True))
    plain = turn._with(turn._cache.fork(), plan=Plan.parse("int8"))
    pairs = (other.under("int8"), plain), (model.read(LONG, "concat(chunk=64)").under(pieces), model.read(LONG, pieces))
    for mine, its in pairs:
        assert ask(mine, QUESTIONS[1], "single")[0].token_ids == ask(its, QUESTIONS[1], "single")[0].token_ids


@pytest.mark.parametrize(
    ("read", "plan"),
    [
        ("full", "int8"),
        ("full", "topk:64(read=true)"),
        ("full", NOTED),
        (NOTED, NOTED.replace("block=8", "block=4")),
        (NOTED, NOTED.replace("recent=8", "recent=9")),
        ("snapkv:60KiB(window=8)", INDEXED + " | snapkv:60KiB(window=8)"),
    ],
)
def test_a_plan_that_reads_in_another_way_needs_another_reading(read: str, plan: str) -> None:
    model, _ = pair("llama")
    with pytest.raises(PlanError, match=r"reads in another way.*Read the text again"):
        model.read(LONG, read).under(plan)


@pytest.mark.parametrize(
    ("plan", "error", "words"),
    [
        ("topk", PlanError, "needs a budget.*topk:2048 or topk:10%"),
        ("topk:0", BudgetError, "too small"),
        ("topk:2GiB", BudgetError, "in bytes, and fetching frees none"),
        ("topk:9(recent=-1)", PlanError, "recent=-1 is negative; give 0 or more"),
        ("topk:9(together=-1)", PlanError, "together=-1 is negative"),
        ("topk:9(sinks=-4)", PlanError, "sinks=-4 is negative"),
        ("topk:9 | quest:64", PlanError, "both fill the slot .fetch."),
        ("quest:64(page=0)", PlanError, "page=0 holds nothing; give 1 or more"),
        ("tokenselect:64(similarity=1.5)", PlanError, "similarity=1.5 is no cosine"),
        ("recycled:64(similarity=-2)", PlanError, "similarity=-2.0 is no cosine"),
        ("recycled:64(stride=0)", PlanError, "stride=0 never reads anything"),
        ("infllm:64", BudgetError, "64 entries is too small; give 128 or more"),
        ("infllm:640(block=0)", PlanError, "block=0 is none; give 1 or more"),
        ("infllm:640(representatives=0)", PlanError, "representatives=0 is none"),
        ("squeezed:64(share=0.0)", PlanError, "share=0.0 is no share of the keys"),
        ("squeezed:64(coarse=0.1)", PlanError, "coarse=0.1 leaves no coarser level"),
        ("squeezed:64(iterations=0)", PlanError, "iterations=0 is none"),
        ("magicpig:64(bits=16)", PlanError, "bits=16 is no size of a code; give 1 to 15"),
        ("magicpig:64(tables=1)", PlanError, "tables=1 cannot collide twice"),
        ("emllm:640(contiguity=1.0)", PlanError, "contiguity=1.0 is no share of the budget"),
        ("emllm:640(longest=9)", PlanError, "longest=9 leaves no choice; give at least twice shortest=8"),
        ("emllm:128", BudgetError, "128 entries is too small; give 183 or more"),
        ("emllm:640 | layerwise", PlanError, "cannot decide in layerwise order"),
        ("actqkv:64", BudgetError, "64 entries is too small; give 128 or more"),
        ("landmark:64(chunk=0)", PlanError, "chunk=0 is too small; give 1 or more"),
        ("quest:8(page=16)", BudgetError, "8 entries is too small; give 16 or more"),
    ],
)
def test_mistakes_are_told_when_the_plan_is_built(plan: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Plan.parse(plan)


def test_a_model_of_sliding_windows_has_nothing_to_fetch_from() -> None:
    model, _ = pair("mistral")
    with pytest.raises(PlanDoesNotApply, match="topk acts on full-attention layers"):
        model.read(LONG, "topk:64")


def test_a_context_is_read_by_fetching_or_by_a_pattern() -> None:
    model, _ = pair("llama")
    with pytest.raises(PlanError, match=r"Write topk\(read=false\), or leave the pattern out"):
        model.read(LONG, "topk:64(read=true) | ashape")
    assert model.read(LONG, "topk:64 | ashape").seen


def test_a_share_of_the_tokens_seen_is_at_least_one_page() -> None:
    method = Plan.parse("quest:1%(page=16)").get("fetch")
    assert method is not None and [method.entries(n) for n in (10, 1600, 3200)] == [16, 16, 32]
