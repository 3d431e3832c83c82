"""A budget while answering: it holds, costs nothing that was read, and memory stays flat however long the answer."""

from __future__ import annotations

import functools
import gc
from pathlib import Path

import pytest
import torch
from transformers import LogitsProcessorList, PreTrainedModel, SuppressTokensLogitsProcessor

import farspan
from farspan.context import Answer, Context
from farspan.errors import BudgetError, PlanError
from farspan.model import Model
from farspan.plan import Plan
from farspan.testing import allocated_bytes
from tests.models import tiny, tiny_tokenizer
from tests.oracle.recording import TOLERANCE, agreement, recording
from tests.oracle.situations import LONG, MIDDLE, ORDERS, QUESTIONS, SITUATIONS, pair, read

LIMIT = 60
PLANS = (
    f"snapkv:40(window=8, decode={LIMIT})",
    f"window:40(decode={LIMIT}) | int8",
    f"adakv:40 | h2o(recent=8, decode={LIMIT})",
    f"pyramid:48 | tova(decode={LIMIT}) | int8(residual=16)",
    f"ems:40 | globallocal(window=8, decode={LIMIT})",
    f"lookm:40 | textprior(recent=8, decode={LIMIT}) | int8",
    f"expected:48(window=16, decode={LIMIT})",
    f"pyramid:48 | spatten(decode={LIMIT})",
    f"random:2000(decode={LIMIT})",
)


def going_on(tokens: int) -> dict:
    """Options for an answer of just so many tokens."""
    return {
        "max_new_tokens": tokens,
        "logits_processor": LogitsProcessorList([SuppressTokensLogitsProcessor([2])]),
    }


def came_since(context: Context, read_tokens: int) -> list[int]:
    """Per full-attention layer, how many entries a head holds at most of tokens that came after reading."""
    views = [view for view in context.inspect() if view.window is None]
    return [max(int((at >= read_tokens).sum()) for at in view.positions) for view in views]


def extents(context: Context) -> list[int]:
    return [id(extent) for layer in context._cache.layers for extent in layer.extents[: layer.sealed]]


@pytest.mark.parametrize(
    ("kind", "plan"), [*(("llama", plan) for plan in PLANS), *(("gemma3", plan) for plan in PLANS[::4])]
)
def test_it_holds_and_what_was_read_stays_shared(kind: str, plan: str) -> None:
    model, _ = pair(kind)
    context = model.read(LONG, plan)
    before, held = extents(context), context.held_bytes
    turn: Answer = context.ask(QUESTIONS[0], **going_on(150))
    turn = turn.context.ask(QUESTIONS[1], **going_on(150))
    assert turn.context.seen > context.seen + 300
    counts = came_since(turn.context, context.seen)
    heads = 2  # on average over heads, where an allocator treats them apart
    assert max(counts) <= LIMIT * (heads if "adakv" in plan else 1) and min(counts) > LIMIT // 2 - 8
    for layer in turn.context._cache.layers:
        if layer.window is None:
            open_entries = sum(layer.held(heads)) - sum(n for e in layer.extents[: layer.sealed] for n in e.counts)
            assert open_entries <= LIMIT * heads
        assert layer.nbytes == allocated_bytes(layer)
    assert extents(turn.context) == before and context.held_bytes == held


TURNS = ("third turn", "append to a conversation", "save and open", "fork")
SOME = [(plan, TURNS[i % len(TURNS)]) for i, plan in enumerate(PLANS)]
REST = [(plan, turns) for plan in PLANS for turns in TURNS if (plan, turns) not in SOME]


@pytest.mark.parametrize(
    ("plan", "situation"), [*SOME, *(pytest.param(*each, marks=pytest.mark.slow) for each in REST)]
)
def test_the_oracle_replays_it(plan: str, situation: str, tmp_path: Path) -> None:
    model, twin = pair("llama")
    order = ORDERS[len(plan + situation) % 2]
    with recording() as record:
        contexts = read(model, f"{plan} | {order}", "packed", situation)
        chains = [c for context in contexts for c in SITUATIONS[situation](context, "packed", tmp_path)]
    for chain in chains:
        assert agreement(twin, record, *chain) <= TOLERANCE


def test_without_it_new_tokens_are_held_as_they_come() -> None:
    model, _ = pair("llama")
    context = model.read(LONG, "snapkv:40(window=8)")
    answer = context.ask(QUESTIONS[0], **going_on(150))
    assert came_since(answer.context, context.seen) == [answer.context.seen - context.seen] * 3


@pytest.mark.parametrize("plan", PLANS[::4])
def test_a_batch_answers_as_single_questions_do(plan: str) -> None:
    model, _ = pair("llama")
    context = model.read(LONG, plan)
    together = context.ask(list(QUESTIONS), **going_on(120))
    for question, answer in zip(QUESTIONS, together, strict=True):
        assert context.ask(question, **going_on(120)).token_ids == answer.token_ids


@pytest.mark.parametrize("plan", PLANS[1::4])
def test_plain_generate_holds_it_too(plan: str) -> None:
    model, _ = pair("llama")
    context = model.read(MIDDLE, plan)
    answer = context.ask(QUESTIONS[0], **going_on(150))
    inputs = context.inputs(QUESTIONS[0])
    start = inputs["input_ids"].shape[1]
    out = model.hf.generate(**inputs, do_sample=False, suppress_tokens=[2], max_new_tokens=150)
    assert tuple(out[0, start:].tolist()) == answer.token_ids
    sequence = inputs["past_key_values"].sequences[0]
    for layer in sequence.layers:
        assert sum(layer.held(2)) - sum(n for e in layer.extents[: layer.sealed] for n in e.counts) <= 2 * LIMIT


def test_a_saved_conversation_goes_on_as_the_unsaved_one(tmp_path: Path) -> None:
    model, _ = pair("llama")
    for plan in (PLANS[0], PLANS[2]):
        turn = model.read(LONG, plan).ask(QUESTIONS[0], **going_on(100)).context
        turn.save(tmp_path / "turn.ctx")
        opened = model.open(tmp_path / "turn.ctx")
        assert opened.ask(QUESTIONS[1], **going_on(100)).token_ids == turn.ask(QUESTIONS[1], **going_on(100)).token_ids


@pytest.mark.parametrize("text", ["snapkv:100(decode=36)", "tova:100(decode=1)", "h2o:100(recent=50, decode=50)"])
def test_a_budget_that_its_floor_would_fill_is_refused(text: str) -> None:
    with pytest.raises(BudgetError, match=r"leaves no room above the floor of \d+ .* Give at least \d+"):
        Plan.parse(text)
    with pytest.raises(PlanError, match="goes by predictions"):
        Plan.parse("sirllm:100(decode=80)")
    with pytest.raises(PlanError, match="decode takes an int"):
        Plan.parse("snapkv:100(decode=many)")


@functools.cache
def small() -> tuple[Model, PreTrainedModel]:
    tokenizer = tiny_tokenizer()
    hf = tiny("llama", vocab_size=len(tokenizer), layers=1)
    return farspan.load(hf, tokenizer=tokenizer), hf


def held_while_answering(plan: str, tokens: int, marks: tuple[int, ...]) -> tuple[list[int], list[int], list[int]]:
    """-> after so many tokens of one answer: bytes of KV, live tensors and all bytes of tensors but token ids."""
    model, _ = small()
    context = model.read(LONG, plan)
    held, count, total = [], [], []
    for at, _ in enumerate(_steps(context, tokens), 1):
        if at in marks:
            gc.collect()
            alive = [o for o in gc.get_objects() if type(o) is torch.Tensor and o.dtype != torch.int32]
            held.append(sum(layer.nbytes for layer in _turn(context).cache.layers))
            count.append(len(alive))
            total.append(sum(t.untyped_storage().nbytes() for t in alive))
    return held, count, total


_running: dict[int, object] = {}


def _steps(context: Context, tokens: int):
    from farspan.asking import Asking
    from farspan.runtime.decoder import decode

    asking = Asking([context], [QUESTIONS[0]], going_on(tokens))
    _running[id(context)] = asking
    yield from decode(asking.body, asking.turns, asking.sampling)


def _turn(context: Context):
    return _running[id(context)].turns[0]  # type: ignore[attr-defined]


def check_flat(plan: str, tokens: int, marks: tuple[int, ...]) -> None:
    held, count, total = held_while_answering(plan, tokens, marks)
    slack = 2 * (LIMIT + 128) * 2 * (16 + 16) * 4  # what stands at a mark varies within one round of decisions
    assert max(held) - min(held) <= slack, held
    assert max(count) - min(count) <= 200, count
    assert max(total) - min(total) <= 2 * slack, total


@pytest.mark.parametrize("plan", [PLANS[0], PLANS[2]])
def test_memory_is_flat_over_a_long_answer(plan: str) -> None:
    check_flat(plan, 800, (200, 400, 600, 800))


@pytest.mark.slow
@pytest.mark.parametrize("plan", [PLANS[0], PLANS[2]])
def test_memory_is_flat_over_twenty_thousand_tokens(plan: str) -> None:
    check_flat(plan, 20_000, (1000, 5000, 10_000, 15_000, 20_000))
