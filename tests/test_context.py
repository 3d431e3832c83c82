"""A context as a value: what it says about itself, how it is asked, forked and appended to."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessorList, SuppressTokensLogitsProcessor

import farspan
from farspan.context import Context
from farspan.errors import (
    BudgetError,
    CapacityError,
    DocumentError,
    ForeignContext,
    OptionError,
    PlanDoesNotApply,
    UsageError,
)
from farspan.model import Model
from farspan.plan import Plan
from tests.models import WINDOW, tiny, tiny_tokenizer
from tests.oracle.recording import recording
from tests.oracle.replay import TOLERANCE, difference
from tests.oracle.situations import LONG, MIDDLE, OTHER, QUESTIONS, SHORT, pair

GOING_ON = {"logits_processor": LogitsProcessorList([SuppressTokensLogitsProcessor([2])])}  # never the end token


@pytest.fixture
def model() -> Model:
    return pair("llama")[0]


def described(context: Context) -> tuple:
    held = [[p.tolist() for p in view.positions] for view in context.inspect()]
    return context.seen, context.next_position, context.held_bytes, held, context.token_ids.tolist()


# -- what is held --------------------------------------------------------------------------------------------------


def test_seen_held_and_next_position_are_three_numbers(model: Model) -> None:
    context = model.read(LONG, "window:24 | stream(chunk=64)")
    tokens = len(tiny_tokenizer()(LONG)["input_ids"])
    assert (context.seen, context.next_position, context.held) == (tokens, tokens, 24)
    answer = context.ask(QUESTIONS[0], max_new_tokens=9, **GOING_ON)
    fed = answer.usage.question_tokens + 8  # the ninth is chosen, and fed by the next turn
    assert (answer.context.seen, answer.context.held) == (tokens + fed, 24 + fed)
    assert answer.usage.seen == tokens and answer.usage.held == 24 and answer.usage.answer_tokens == 9


def test_truncated_text_is_never_seen(model: Model) -> None:
    context = model.read(LONG, "truncate:50")
    whole = tiny_tokenizer()(LONG)["input_ids"]
    assert context.token_ids.tolist() == whole[:25] + whole[-25:]
    first, last = context.locate(0), context.locate(49)
    assert first is not None and last is not None
    assert first.start == 0 and last.end == len(LONG)


def test_a_window_holds_the_sinks_and_the_newest(model: Model) -> None:
    context = model.read(LONG, "window:24(sinks=3) | stream(chunk=64)")
    for view in context.inspect():
        for held in view.positions:
            assert held.tolist() == [0, 1, 2, *range(context.seen - 21, context.seen)]


def test_sinks_and_the_newest_tokens_stay_whatever_their_score(model: Model) -> None:
    for plan, recent in (("random:40", 32), ("snapkv:20(window=8)", 8)):
        context = model.read(LONG, f"{plan} | stream(chunk=64)")
        ends = {0, 1, 2, 3, *range(context.seen - recent, context.seen)}
        assert all(ends <= set(held.tolist()) for view in context.inspect() for held in view.positions)


def test_sliding_layers_hold_their_window_less_one() -> None:
    model, _ = pair("gemma3")
    context = model.read(LONG, "random:40")
    after = context.ask("Which one?", max_new_tokens=30, **GOING_ON).context
    for each in (context, after):
        for view in each.inspect():
            if view.window is not None:
                expected = list(range(each.seen - WINDOW + 1, each.seen))
                assert all(p.tolist() == expected for p in view.positions)
    full = [p.tolist() for view in context.inspect() if view.window is None for p in view.positions]
    assert all(len(p) == 40 and len(set(p)) == 40 for p in full)
    assert context.held == 40, "an average over the layers that the plan acts on"


@pytest.mark.parametrize("order", ["stream(chunk=64)", "layerwise(chunk=64)"])
def test_budgets_mean_what_they_say(model: Model, order: str) -> None:
    tokens = model.read(LONG).seen
    assert model.read(LONG, f"random:50 | {order}").held == 50
    assert model.read(LONG, f"random:25% | {order}").held == tokens // 4, "fixed before the first chunk"
    assert model.read(LONG, f"random:100% | {order}").held == tokens
    assert model.read(LONG, f"random:5000 | {order}").held == tokens


@pytest.mark.parametrize("store", ["", " | int8", " | int8(group=16)"])
@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_a_budget_in_bytes_is_used_up_and_not_exceeded(kind: str, store: str) -> None:
    model, _ = pair(kind)
    everything = model.read(LONG, f"random:100%{store}").held_bytes
    for share in (0.7, 0.8, 0.9):
        given = int(everything * share)
        context = model.read(LONG, f"random:{given}B{store} | stream(chunk=64)")
        assert context.held_bytes <= given
        one_more = model.read(LONG, f"random:{int(context.held) + 1}{store} | stream(chunk=64)")
        assert one_more.held_bytes > given, "an entry more per head would have fitted"
    with pytest.raises(BudgetError):
        model.read(LONG, f"random:10B{store}")


def test_budgets_below_a_scorers_floor_are_refused(model: Model) -> None:
    with pytest.raises(BudgetError, match="below its floor of 12"):
        model.read(LONG, "snapkv:11(window=8)")
    assert model.read(LONG, "snapkv:12(window=8)").held == 12


@pytest.mark.parametrize("plan", ["full", "int8"])
@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma3"])
def test_chunks_are_invisible_where_nothing_is_dropped(kind: str, plan: str) -> None:
    if plan == "int8":
        plan = "int8 | layerwise"  # in stream order later chunks do see what is packed
        orders = [f"int8 | layerwise(chunk={chunk})" for chunk in (7, 64, 1000)]
        if kind == "mistral":
            pytest.skip("a plan with no layer left to act on is refused")
    else:
        orders = [f"{order}(chunk={chunk})" for order in ("stream", "layerwise") for chunk in (7, 64, 1000)]
    model, _ = pair(kind)
    with recording() as record:
        answered = [model.read(LONG, order).ask(QUESTIONS[0], max_new_tokens=3, **GOING_ON).context for order in orders]
    logits = [torch.cat([p.logits for p in record.of(each)]) for each in answered]
    for other in logits[1:]:
        # int8 codes may round to a neighbour where keys differ in their last bit
        assert difference(other, logits[0]) <= (TOLERANCE if plan == "full" else 1e-2)


def test_a_probe_changes_what_is_kept_and_leaves_no_trace(model: Model) -> None:
    plan = "snapkv:40(window=8) | stream(chunk=64)"
    plain, one, two = (model.read(LONG, plan, probe=probe) for probe in (None, *QUESTIONS[:2]))
    assert plain.token_ids.tolist() == one.token_ids.tolist() == two.token_ids.tolist()
    assert plain.held == one.held == two.held == 40
    kept = [described(each)[3] for each in (plain, one, two)]
    assert kept[0] != kept[1] != kept[2] != kept[0]
    full, probed = model.read(LONG), model.read(LONG, probe=QUESTIONS[0])
    assert described(full) == described(probed), "where nothing is decided a probe changes nothing"


def test_reading_is_repeatable_and_independent_of_the_batch(model: Model) -> None:
    plan = "random:40 | int8 | stream(chunk=64)"
    batch = model.read_batch([SHORT, LONG, MIDDLE], plan)
    singles = [model.read(text, plan) for text in (SHORT, LONG, MIDDLE)]
    assert [described(c) for c in batch] == [described(c) for c in singles]


def test_progress_arrives_at_the_total(model: Model) -> None:
    for order in ("stream(chunk=64)", "layerwise(chunk=64)"):
        steps: list[Any] = []
        context = model.read(LONG, order, progress=steps.append)
        assert steps[-1].done == steps[-1].total == context.seen
        assert all(a.done <= b.done for a, b in itertools.pairwise(steps))
        assert context.cost.tokens == context.seen and context.cost.peak_bytes >= context.held_bytes


def test_an_interrupted_read_leaves_the_model_and_the_context_as_they_were(model: Model) -> None:
    context = model.read(LONG, "snapkv:40(window=8) | stream(chunk=64)")
    before, answer = described(context), context.ask(QUESTIONS[0], max_new_tokens=5)

    def interrupt(progress: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        context.append(OTHER, progress=interrupt)
    assert described(context) == before
    assert context.ask(QUESTIONS[0], max_new_tokens=5).token_ids == answer.token_ids


def test_the_plan_is_checked_against_the_model() -> None:
    pair("llama")[0].layout.check(Plan.parse("snapkv:100 | int8"))
    with pytest.raises(PlanDoesNotApply, match="Use the plan 'full'"):
        pair("mistral")[0].layout.check(Plan.parse("int8"))


@pytest.mark.parametrize("text", ["", []])
def test_nothing_to_read_is_an_error(model: Model, text: Any) -> None:
    with pytest.raises(DocumentError):
        model.read(text)


# -- asking --------------------------------------------------------------------------------------------------------


def test_asking_does_not_change_the_context(model: Model) -> None:
    context = model.read(LONG, "snapkv:40(window=8) | int8 | stream(chunk=64)")
    before = described(context)
    answers = [context.ask(QUESTIONS[0], max_new_tokens=150, **GOING_ON) for _ in range(2)]
    assert described(context) == before
    assert answers[0].token_ids == answers[1].token_ids


@pytest.mark.parametrize("kind", ["llama", "gemma3", "gpt2"])
def test_a_batch_of_questions_is_answered_as_one_by_one(kind: str) -> None:
    model, _ = pair(kind)
    context = model.read(LONG, "snapkv:40(window=8) | stream(chunk=64)")
    questions = [*QUESTIONS, QUESTIONS[0] * 4]
    with recording() as record:
        together = context.ask(questions, max_new_tokens=12)
        alone = [context.ask(question, max_new_tokens=12) for question in questions]
    for a, b in zip(together, alone, strict=True):
        one, other = (torch.cat([p.logits for p in record.of(x.context)]) for x in (a, b))
        assert a.token_ids == b.token_ids
        assert difference(one, other) <= TOLERANCE
    assert context.ask([]) == []


def test_several_contexts_are_asked_together_as_one_by_one(model: Model) -> None:
    contexts = [model.read(LONG, "snapkv:40(window=8)"), model.read(SHORT), model.read(LONG + OTHER, "int8")]
    contexts.append(contexts[0])
    questions = [*QUESTIONS[:3], QUESTIONS[1]]
    limits = [7, 3, 9, 5]
    together = model.ask_batch(contexts, questions, max_new_tokens=limits, **GOING_ON)
    for context, question, limit, answer in zip(contexts, questions, limits, together, strict=True):
        alone = context.ask(question, max_new_tokens=limit, **GOING_ON)
        assert answer.token_ids == alone.token_ids and len(answer.token_ids) == limit
        assert described(answer.context) == described(alone.context) and answer.usage == alone.usage
    assert model.ask_batch([], []) == []


def test_what_cannot_be_asked_together_is_refused(model: Model) -> None:
    context = model.read(SHORT)
    with pytest.raises(UsageError, match="1 contexts and 2 questions"):
        model.ask_batch([context], QUESTIONS[:2])
    with pytest.raises(ForeignContext, match="ask it there"):
        pair("qwen3")[0].ask_batch([context], QUESTIONS[:1])
    for limits in ([3], [3, 0], [3, "4"]):
        with pytest.raises(OptionError, match=r"max_new_tokens=.* for 2 questions"):
            context.ask(list(QUESTIONS[:2]), max_new_tokens=limits)


def test_questions_on_different_contexts_of_one_batch_do_not_mix(model: Model) -> None:
    one, two = model.read_batch([LONG, SHORT])
    assert (
        one.ask(QUESTIONS[0], max_new_tokens=9).token_ids
        == model.read(LONG).ask(QUESTIONS[0], max_new_tokens=9).token_ids
    )
    assert two.token_ids.tolist() == tiny_tokenizer()(SHORT)["input_ids"]


def test_the_next_turn_continues_where_the_answer_ended(model: Model) -> None:
    context = model.read(LONG)
    answer = context.ask(QUESTIONS[0], max_new_tokens=4, **GOING_ON)
    then = answer.context.ask(QUESTIONS[1], max_new_tokens=4, **GOING_ON)
    asked = [tiny_tokenizer()(f"\n\nQuestion: {q}\nAnswer:")["input_ids"] for q in QUESTIONS[:2]]
    whole = [*context.token_ids.tolist(), *asked[0], *answer.token_ids, *asked[1], *then.token_ids]
    assert then.context.token_ids.tolist() == whole[:-1]


def test_finish_reasons_are_true(model: Model) -> None:
    context = model.read(LONG)
    full = context.ask(QUESTIONS[0], max_new_tokens=7, **GOING_ON)
    assert (full.finish_reason, len(full.token_ids)) == ("length", 7)
    ended = context.ask(QUESTIONS[0], generation_config=GenerationConfig(eos_token_id=full.token_ids[2]))
    first = full.token_ids.index(full.token_ids[2])
    assert (ended.finish_reason, ended.token_ids) == ("stop", full.token_ids[: first + 1])


def test_a_stop_string_ends_the_answer_before_itself(model: Model) -> None:
    context = model.read(LONG)
    whole = context.ask(QUESTIONS[0], max_new_tokens=40, **GOING_ON)
    stop = whole.text[12:15]
    at = whole.text.find(stop)
    for given in (stop, [stop, "never said"]):
        stopped = context.ask(QUESTIONS[0], max_new_tokens=40, stop=given, **GOING_ON)
        assert (stopped.text, stopped.finish_reason) == (whole.text[:at], "stop")
        assert len(stopped.token_ids) < 40
        stream = context.stream(QUESTIONS[0], max_new_tokens=40, stop=given, **GOING_ON)
        assert "".join(stream) == stream.answer.text == stopped.text


def test_streamed_pieces_are_the_answer(model: Model) -> None:
    context = model.read(LONG)
    for options in ({}, {"generation_config": GenerationConfig(do_sample=True, temperature=2.0), "seed": 3}):
        stream = context.stream(QUESTIONS[0], max_new_tokens=60, **GOING_ON, **options)
        with pytest.raises(UsageError, match="not finished"):
            _ = stream.answer
        pieces = list(stream)
        assert "".join(pieces) == stream.answer.text and len(pieces) > 5 and all(pieces)
        assert stream.answer.token_ids == context.ask(QUESTIONS[0], max_new_tokens=60, **GOING_ON, **options).token_ids


class _Says:
    """A logits processor that makes the model say given tokens."""

    def __init__(self, ids: list[int], after: int) -> None:
        self.ids, self.after = ids, after

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        wanted = self.ids[input_ids.shape[1] - self.after]
        return torch.full_like(scores, -1e9).index_fill_(1, torch.tensor([wanted]), 0.0)


@pytest.mark.parametrize("said", ["naïve Käfer – süß!", "日本語のテキスト", "🙂👍🏽 done", "a\n\n  b "])
def test_characters_of_several_tokens_are_never_torn(model: Model, said: str) -> None:
    context = model.read(SHORT)
    ids = [*tiny_tokenizer()(said)["input_ids"], 2]
    begin = context.seen + context._question(QUESTIONS[0]).numel()
    speaking: Any = LogitsProcessorList([_Says(ids, begin)])
    stream = context.stream(QUESTIONS[0], logits_processor=speaking)
    pieces = list(stream)
    assert all("�" not in piece for piece in pieces)
    assert "".join(pieces) == stream.answer.text == said
    assert stream.answer.finish_reason == "stop"


def test_a_seed_repeats_an_answer_whatever_is_asked_beside_it(model: Model) -> None:
    context = model.read(LONG)
    options: dict[str, Any] = {
        "max_new_tokens": 12, "generation_config": GenerationConfig(do_sample=True, temperature=1.5), **GOING_ON,
    }  # fmt: skip
    alone = context.ask(QUESTIONS[0], seed=5, **options)
    assert context.ask(QUESTIONS[0], seed=5, **options).token_ids == alone.token_ids
    assert context.ask([QUESTIONS[1], QUESTIONS[0]], seed=5, **options)[1].token_ids == alone.token_ids
    assert context.ask(QUESTIONS[0], seed=6, **options).token_ids != alone.token_ids


@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 1.7},
        {"no_repeat_ngram_size": 2},
        {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "max_new_tokens": 9},
    ],
    ids=str,
)
def test_a_generation_config_is_honoured_as_transformers_does(settings: dict[str, Any]) -> None:
    model, twin = pair("llama")
    context = model.read(LONG)
    config = GenerationConfig(**{"max_new_tokens": 20, **settings, "eos_token_id": 2, "pad_token_id": 0})
    ids = torch.cat([context.token_ids.long(), context._question(QUESTIONS[0])])[None]
    theirs = twin.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
    ours = context.ask(QUESTIONS[0], generation_config=config)
    assert list(ours.token_ids) == theirs[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("settings", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}, {"min_p": 0.999}], ids=str)
def test_sampling_that_leaves_one_choice_is_greedy(model: Model, settings: dict[str, Any]) -> None:
    context = model.read(LONG)
    config = GenerationConfig(do_sample=True, **settings)
    sampled = context.ask(QUESTIONS[0], generation_config=config, max_new_tokens=9, seed=1)
    assert sampled.token_ids == context.ask(QUESTIONS[0], max_new_tokens=9).token_ids


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 4},
        {"penalty_alpha": 0.6},
        {"min_new_tokens": 5},
        {"guidance_scale": 2.0},
        {"forced_eos_token_id": 2},
    ],
    ids=str,
)
def test_a_setting_that_is_not_honoured_is_refused_by_name(model: Model, settings: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(settings))):
        model.read(SHORT).ask(QUESTIONS[0], generation_config=GenerationConfig(**settings))


def test_wrong_options_and_questions_say_what_is_right(model: Model) -> None:
    context = model.read(SHORT)
    with pytest.raises(OptionError, match="Did you mean 'max_new_tokens'"):
        context.ask(QUESTIONS[0], max_new_token=3)
    with pytest.raises(OptionError, match="no room for an answer"):
        context.ask(QUESTIONS[0], max_new_tokens=0)
    with pytest.raises(OptionError, match="empty stop string"):
        context.ask(QUESTIONS[0], stop="")
    for nothing in ("", "  \n"):
        with pytest.raises(UsageError, match="question is empty"):
            context.ask(nothing)
    with pytest.raises(UsageError, match="2 probes for 1"):
        model.read_batch([SHORT], probes=["a?", "b?"])


def test_learned_positions_end_where_they_end() -> None:
    model, _ = pair("gpt2")
    with pytest.raises(CapacityError, match="the model learned 1024 and has no others"):
        model.read(LONG * 5)
    context = model.read(LONG * 2 + SHORT)
    room = 1024 - context.seen
    asked = context._question(QUESTIONS[0]).numel()
    answer = context.ask(QUESTIONS[0], max_new_tokens=1000, **GOING_ON)
    assert (answer.finish_reason, len(answer.token_ids)) == ("length", room - asked)
    with pytest.raises(CapacityError, match="the question"):
        context.ask(QUESTIONS[0] * 40)
    with pytest.raises(CapacityError, match="the question"):
        answer.context.ask(QUESTIONS[1])
    with pytest.raises(CapacityError, match="appending"):
        context.append(LONG * 3)


def test_passing_the_trained_length_is_said() -> None:
    hf = tiny("llama", vocab_size=len(tiny_tokenizer()))
    hf.config.max_position_embeddings = 100
    model = farspan.load(hf, tokenizer=tiny_tokenizer())
    within, beyond = model.read(SHORT[:60]), model.read(LONG)
    assert (within.beyond_trained, beyond.beyond_trained) == (False, True)
    assert not within.ask("Why?", max_new_tokens=2).usage.beyond_trained
    assert beyond.ask("Why?", max_new_tokens=2).usage.beyond_trained
    assert beyond.ask("Why?", max_new_tokens=2).usage.trained_length == 100


# -- forks and more documents --------------------------------------------------------------------------------------


def test_a_forked_context_does_not_see_its_siblings_tokens(model: Model) -> None:
    context = model.read(LONG, "snapkv:40(window=8) | stream(chunk=64)")
    one, two = context.fork(), context.fork()
    before = described(two)
    one.append(OTHER)
    answer = one.ask(QUESTIONS[0], max_new_tokens=140, **GOING_ON)
    assert described(two) == described(one) == described(context) == before
    assert two.ask(QUESTIONS[0], max_new_tokens=140, **GOING_ON).token_ids == answer.token_ids


def test_appending_decides_anew_over_old_and_new(model: Model) -> None:
    for order in ("stream(chunk=64)", "layerwise(chunk=64)"):
        absolute = model.read(LONG, f"snapkv:40(window=8) | {order}").append(OTHER)
        assert absolute.held == 40, "an absolute budget bounds the whole context"
        old = [p[p < model.read(LONG).seen].numel() for view in absolute.inspect() for p in view.positions]
        assert min(old) >= 4 and max(old) < 40, "sinks stay, others give way"
        share = model.read(LONG, f"random:20% | {order}")
        longer = share.append(OTHER)
        assert longer.held == int(longer.seen * 0.2) > share.held


def test_appending_equals_reading_at_once_where_nothing_is_dropped(model: Model) -> None:
    separator = "\n\n"
    once, twice = model.read([LONG, OTHER]), model.read(LONG).append(OTHER)
    assert once.token_ids.tolist() == twice.token_ids.tolist()
    assert tiny_tokenizer().decode(once.token_ids) == LONG + separator + OTHER
    first, second = (each.ask(QUESTIONS[0], max_new_tokens=9).token_ids for each in (once, twice))
    assert first == second


def test_appended_text_is_located(model: Model) -> None:
    context = model.read([SHORT, MIDDLE]).append(OTHER)
    last = context.locate(context.seen - 1)
    assert last is not None and last.end == len(OTHER)
    first = context.locate(0)
    assert first is not None and first.start == 0


def test_what_is_packed_and_not_decided_about_again_is_not_quantised_twice(model: Model) -> None:
    context = model.read(LONG, plan="snapkv:4000 | int8")
    packed = [layer.extents[0] for layer in context._cache.layers]
    longer = context.append("One more line.\n")
    assert [layer.extents[0] for layer in longer._cache.layers] == packed
