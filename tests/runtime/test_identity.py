"""With nothing dropped and nothing quantised, farspan is Hugging Face's own model: ids, logits, layers, positions."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import farspan
from farspan.context import Context
from farspan.errors import CapacityError, ForeignContext, ModelNotPrepared, OptionError
from farspan.runtime.step import Row, Step
from tests.models import tiny, tiny_tokenizer
from tests.oracle.recording import recording
from tests.oracle.replay import TOLERANCE, difference
from tests.oracle.situations import KINDS, LONG, MIDDLE, ORDERS, QUESTIONS, SHORT, pair

MARGIN = 1e-4  # between the two best logits: below it, either may be chosen
NEW = 12


def own_generate(twin: Any, ids: Tensor, new: int = NEW) -> tuple[list[int], Tensor]:
    """Hugging Face's greedy continuation of ids [N] -> tokens, and logits [tokens, V]."""
    out = twin.generate(
        input_ids=ids[None].long(),
        attention_mask=torch.ones_like(ids[None]),
        max_new_tokens=new,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    return out.sequences[0, ids.numel() :].tolist(), torch.cat(out.logits)


def assert_same_ids(ours: tuple[int, ...], theirs: list[int], logits: Tensor) -> None:
    """Equal, or first different where the two best logits lie closer than MARGIN."""
    for i, (a, b) in enumerate(zip(ours, theirs, strict=False)):
        if a != b:
            best, next_best = logits[i].topk(2).values
            assert best - next_best < MARGIN, f"token {i}: {a} instead of {b}"
            return
    assert len(ours) == len(theirs)


def prompt(context: Context, question: str) -> Tensor:
    return torch.cat([context.token_ids.long(), context._question(question)])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", KINDS)
def test_answers_have_the_ids_of_hugging_faces_own_generate(kind: str, order: str) -> None:
    model, twin = pair(kind)
    contexts = [model.read(LONG, order), *model.read_batch([SHORT, LONG, MIDDLE], order)]
    for context in contexts:
        answers = context.ask(list(QUESTIONS), max_new_tokens=NEW)
        for question, answer in zip(QUESTIONS, answers, strict=True):
            assert_same_ids(answer.token_ids, *own_generate(twin, prompt(context, question)))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mistral"])
def test_a_budget_above_the_text_drops_nothing(kind: str, order: str) -> None:
    model, twin = pair(kind)
    context = model.read(LONG, f"snapkv:4096 | {order}")
    assert context.held == context.seen
    answer = context.ask(QUESTIONS[0], max_new_tokens=NEW)
    assert_same_ids(answer.token_ids, *own_generate(twin, prompt(context, QUESTIONS[0])))


@pytest.mark.parametrize("kind", KINDS)
def test_every_turn_of_a_conversation_is_generates_own(kind: str) -> None:
    model, twin = pair(kind)
    context = model.read(LONG, "full")
    for question in QUESTIONS:
        answer = context.ask(question, max_new_tokens=NEW)
        assert_same_ids(answer.token_ids, *own_generate(twin, prompt(context, question)))
        context = answer.context


# -- plain transformers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("instance", ["the one that read", "another"])
@pytest.mark.parametrize("plan", ["full", "snapkv:40(window=8)", "int8", "window:40 | int8"])
@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3", "phi3", "gpt2", "opt"])
def test_generate_with_a_contexts_inputs_answers_as_ask_does(kind: str, plan: str, instance: str) -> None:
    model, _ = pair(kind)
    hf = model.hf if instance == "the one that read" else prepared_other(kind)
    context = model.read(LONG, f"{plan} | stream(chunk=64)" if plan != "full" else plan)
    before = described(context)
    for turn in (context, context.ask(QUESTIONS[1], max_new_tokens=NEW).context):
        asked = turn.ask(QUESTIONS[0], max_new_tokens=NEW)
        inputs = turn.inputs(QUESTIONS[0])
        out = farspan.prepare(hf).generate(**inputs, max_new_tokens=NEW, do_sample=False)
        assert tuple(out[0, inputs["input_ids"].shape[1] :].tolist()) == asked.token_ids
    assert described(context) == before, "generating changed the context"
    assert context.ask(QUESTIONS[0], max_new_tokens=NEW).token_ids == asked_again(context)


def asked_again(context: Context) -> tuple[int, ...]:
    inputs = context.inputs(QUESTIONS[0])
    out = context.model.hf.generate(**inputs, max_new_tokens=NEW, do_sample=False)
    return tuple(out[0, inputs["input_ids"].shape[1] :].tolist())


_others: dict[str, Any] = {}


def prepared_other(kind: str) -> Any:
    """Another instance with the same weights, prepared."""
    if kind not in _others:
        _others[kind] = farspan.prepare(tiny(kind, vocab_size=len(tiny_tokenizer())))
    return _others[kind]


def described(context: Context) -> tuple:
    held = [[p.tolist() for p in view.positions] for view in context.inspect()]
    return context.seen, context.next_position, context.held, context.held_bytes, held


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_was_not_prepared_says_so(kind: str) -> None:
    model, twin = pair(kind)
    inputs = model.read(SHORT).inputs(QUESTIONS[0])
    with pytest.raises(ModelNotPrepared, match=r"farspan\.prepare"):
        twin.generate(**inputs, max_new_tokens=3)


def test_another_architecture_says_that_the_context_is_not_its_own() -> None:
    model, _ = pair("llama")
    other, _ = pair("gpt2")
    with pytest.raises(ForeignContext, match="read with another model"):
        other.hf.generate(**model.read(SHORT).inputs(QUESTIONS[0]), max_new_tokens=3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_prepared_model_without_a_context_behaves_as_before(kind: str) -> None:
    model, twin = pair(kind)
    ids = torch.randint(3, 131, (3, 30), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, :7], mask[1, :3] = 0, 0
    ids[mask == 0] = 0
    ours, theirs = (
        hf.generate(input_ids=ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False) for hf in (model.hf, twin)
    )
    assert torch.equal(ours, theirs)
    with torch.inference_mode():
        ours, theirs = (hf(input_ids=ids, attention_mask=mask).logits[mask == 1] for hf in (model.hf, twin))
    assert difference(ours, theirs) <= TOLERANCE


def test_generate_refuses_what_a_context_cannot_do() -> None:
    model, _ = pair("llama")
    context = model.read(SHORT)
    with pytest.raises(OptionError, match=r"give the rows that context\.inputs\(\[...\]\) made, without beams"):
        model.hf.generate(**context.inputs(QUESTIONS[0]), max_new_tokens=3, num_beams=2)
    inputs = context.inputs(QUESTIONS[0])
    shifted = {**inputs, "position_ids": inputs["position_ids"] + 1}
    with pytest.raises(CapacityError, match="the next position of this context is"):
        model.hf.generate(**shifted, max_new_tokens=3)
    with pytest.raises(OptionError, match="cannot be cropped"):
        inputs["past_key_values"].crop(1)


# -- half precision ------------------------------------------------------------------------------------------------

BF16_ERROR = 1.25
"""Against the float32 logits, our bfloat16 ones may be this much further off (in root mean square) than Hugging Face's
own: chunks, merged parts and float32 rotations round elsewhere, and must not round worse."""


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_logits_are_as_near_to_float32_as_hugging_faces_own(kind: str, order: str) -> None:
    size = len(tiny_tokenizer())
    model = farspan.load(tiny(kind, vocab_size=size, dtype=torch.bfloat16), tokenizer=tiny_tokenizer())
    with recording() as record:
        context = model.read(LONG, order)
        answered = context.ask(list(QUESTIONS), max_new_tokens=4)[0].context
    ids = answered.token_ids.long()[None]
    passed = record.of(context, answered)
    where = torch.cat([torch.arange(p.start, p.start + p.logits.shape[0]) for p in passed])
    with torch.inference_mode():
        truth = pair(kind)[1](input_ids=ids).logits[0, where]
        theirs = tiny(kind, vocab_size=size, dtype=torch.bfloat16)(input_ids=ids).logits[0, where]
    ours = torch.cat([p.logits for p in passed])
    assert ours.dtype == torch.bfloat16
    error, own_error = ((x.float() - truth).square().mean().sqrt() for x in (ours, theirs))
    assert error <= BF16_ERROR * own_error


# -- positions -----------------------------------------------------------------------------------------------------

TRAINED = 128  # what the models below believe; texts are about three times as long
ROPES: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": TRAINED},
    "llama3": {
        "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": TRAINED,
    },
    "dynamic": {"factor": 2.0},
    "longrope": {
        "short_factor": [1.0 + i / 8 for i in range(8)], "long_factor": [1.0 + i for i in range(8)],
        "factor": 4.0, "original_max_position_embeddings": TRAINED,
    },
}  # fmt: skip
DEPENDENT = ("dynamic", "longrope")


def roped(rope: str) -> Any:
    """A tiny Llama whose positions are of that type."""
    base = tiny("llama", vocab_size=len(tiny_tokenizer()))
    config = transformers.LlamaConfig.from_dict(base.config.to_dict())
    config.rope_parameters = {"rope_type": rope, "rope_theta": 10000.0, **ROPES[rope]}
    config.max_position_embeddings = 4 * TRAINED if rope == "longrope" else TRAINED
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    model.load_state_dict(base.state_dict())
    return model


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("text", [SHORT, LONG], ids=["within", "beyond"])
@pytest.mark.parametrize("rope", ROPES)
def test_logits_are_those_of_one_forward_at_the_length_decided_for(rope: str, text: str, order: str) -> None:
    """One forward of all tokens decides its frequencies for exactly that many; so does a context given that length.

    A cached run of Hugging Face's own does not for `dynamic` and `longrope`: it changes them under cached keys.
    """
    model = farspan.load(roped(rope), tokenizer=tiny_tokenizer())
    with recording() as record:
        length = model.read(text).ask(QUESTIONS[0], max_new_tokens=6).context.seen
        context = model.read(text, order, length=length if rope in DEPENDENT else None)
        answered = context.ask(QUESTIONS[0], max_new_tokens=6).context
    assert (answered.seen > TRAINED) == (text is LONG)
    with torch.inference_mode():
        truth = roped(rope)(input_ids=answered.token_ids.long()[None]).logits[0]
    for passed in record.of(context, answered):
        span = slice(passed.start, passed.start + passed.logits.shape[0])
        if rope not in DEPENDENT or answered.seen == length:
            assert difference(passed.logits, truth[span]) <= TOLERANCE


@pytest.mark.parametrize("rope", DEPENDENT)
def test_frequencies_that_depend_on_the_length_bind_it(rope: str) -> None:
    model = farspan.load(roped(rope), tokenizer=tiny_tokenizer())
    with pytest.raises(CapacityError, match="less than the"):
        model.read(LONG, length=100)
    tokens = model.read(LONG).seen
    context = model.read(LONG, length=tokens + 40)
    asked = context._question(QUESTIONS[0]).numel()
    answer = context.ask(QUESTIONS[0], max_new_tokens=200)
    assert (answer.finish_reason, len(answer.token_ids)) == ("length", 40 - asked)
    with pytest.raises(CapacityError, match="frequencies depend on the length"):
        context.ask(QUESTIONS[0] * 3)
    with pytest.raises(CapacityError, match="frequencies depend on the length"):
        answer.context.ask(QUESTIONS[1])
    with pytest.raises(CapacityError, match="appending"):
        context.append(SHORT)


def test_a_length_given_to_fixed_frequencies_is_no_bound() -> None:
    model, _ = pair("llama")
    context = model.read(LONG, length=model.read(LONG).seen + 1)
    assert len(context.ask(QUESTIONS[0], max_new_tokens=9).token_ids) <= 9


def test_rotations_are_float32_whatever_the_model() -> None:
    model = farspan.load(
        tiny("llama", vocab_size=len(tiny_tokenizer()), dtype=torch.bfloat16), tokenizer=tiny_tokenizer()
    )
    cos, sin = model.read(SHORT).positions.angles(torch.tensor([0, 1000, 100_000]))
    assert cos.dtype == sin.dtype == torch.float32
    frequencies = 10000.0 ** (-torch.arange(0, 16, 2, dtype=torch.float64) / 16)
    exact = torch.tensor([0, 1000, 100_000], dtype=torch.float64)[:, None] * frequencies
    assert torch.allclose(cos[:, :8].double(), exact.cos(), atol=2e-2)
    assert torch.allclose(cos[:2, :8].double(), exact[:2].cos(), atol=1e-4)


# -- layer by layer ------------------------------------------------------------------------------------------------


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


def test_embed_layers_finish_and_head_are_the_models_forward(kind: str) -> None:
    model, twin = pair(kind)
    ids = model.read(LONG).token_ids.long()
    runtime = model.runtime(model.read(SHORT).positions)
    cache = model.layout.empty()
    step = Step([Row(cache, ids.numel(), reading=True)])
    last = len(model.layout.layers) - 1
    with torch.inference_mode():
        hidden = runtime.embed(ids, torch.arange(ids.numel()))
        hidden = runtime.run_layers(0, 0, hidden, step)
        hidden = runtime.run_layers(1, last, hidden, step)
        logits = runtime.logits(runtime.finish(hidden))
        truth = twin(input_ids=ids[None], use_cache=False).logits[0]
    assert difference(logits, truth) <= TOLERANCE


def test_layers_run_in_chunks_continue_from_what_the_cache_holds(kind: str) -> None:
    model, twin = pair(kind)
    ids = model.read(LONG).token_ids.long()
    runtime = model.runtime(model.read(SHORT).positions)
    cache = model.layout.empty()
    parts = []
    with torch.inference_mode():
        for chunk in ids.split(100):
            step = Step([Row(cache, chunk.numel(), reading=True)])
            hidden = runtime.embed(chunk, step.positions)
            hidden = runtime.run_layers(0, len(model.layout.layers) - 1, hidden, step)
            step.feed([chunk])
            parts.append(runtime.logits(runtime.finish(hidden)))
        truth = twin(input_ids=ids[None], use_cache=False).logits[0]
    assert difference(torch.cat(parts), truth) <= TOLERANCE


def test_reading_copies_no_weight() -> None:
    model = farspan.load(tiny("llama", vocab_size=len(tiny_tokenizer())), tokenizer=tiny_tokenizer())

    def weights() -> set[int]:
        return {id(each) for each in gc.get_objects() if type(each) is torch.nn.Parameter}

    gc.collect()  # what other tests left behind may go at any time, and its place be taken
    before = weights()
    contexts = [model.read(SHORT), model.read(SHORT, "yarn(factor=2)")]
    assert len(weights()) <= len(before) and before and len(contexts) == 2
