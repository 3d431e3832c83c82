"""Contexts with positions of their own: one forward at those frequencies says the same, whatever is done with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

import farspan
from farspan.context import Context
from farspan.errors import CapacityError, PlanDoesNotApply
from farspan.methods.positions.yarn import Yarn
from tests.methods.positions.twins import TRAINED, loaded, short, told
from tests.models import tiny, tiny_tokenizer
from tests.oracle.pairwise import pairwise
from tests.oracle.recording import TOLERANCE, agreement, recording
from tests.oracle.replay import difference
from tests.oracle.situations import BATCHES, LONG, MIDDLE, ORDERS, QUESTIONS, SHORT, SITUATIONS, ask, read

PLANS = (
    "linear",
    "ntk",
    "yarn(factor=4)",
    "power | expected:48(window=16)",
    "truncated(factor=2)",
    "resonance(base=ntk) | shadowkv(rank=8)",
    "yarn | snapkv:40(window=8)",
    "ntk(factor=3) | int8(group=16)",
)
KINDS = ("llama", "qwen3", "gemma3", "phi3")
MATRIX = {"plan": PLANS, "situation": tuple(SITUATIONS), "kind": KINDS, "order": ORDERS, "batch": BATCHES}


def name(row: dict) -> str:
    return "-".join(str(value) for value in row.values())


@pytest.mark.parametrize("row", pairwise(MATRIX), ids=name)
def test_logits_are_those_of_the_replayed_decisions_at_the_contexts_frequencies(row: dict, tmp_path: Path) -> None:
    model = loaded(row["kind"])
    with recording() as record:
        contexts = read(model, f"{row['plan']} | {row['order']}", row["batch"], row["situation"])
        situation = SITUATIONS[row["situation"]]
        chains = [chain for context in contexts for chain in situation(context, row["batch"], tmp_path)]
    for chain in chains:
        assert chain[-1].positions.agrees(chain[0].positions)
        assert agreement(told(short(row["kind"]), chain[-1]), record, *chain) <= TOLERANCE


# -- against transformers ------------------------------------------------------------------------------------------

FOUR = {"factor": 4.0, "rope_theta": 10_000.0}
OWN: dict[str, dict[str, Any]] = {
    "linear(factor=4)": {"rope_type": "linear", **FOUR},
    "yarn(factor=4)": {"rope_type": "yarn", "original_max_position_embeddings": TRAINED, **FOUR},
    "yarn(factor=4, beta_fast=8, attention_factor=1)": {
        "rope_type": "yarn", "beta_fast": 8.0, "attention_factor": 1.0, "original_max_position_embeddings": TRAINED,
        **FOUR,
    },
}  # fmt: skip


def one_forward(model: PreTrainedModel, context: Context) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=context.token_ids.long()[None], use_cache=False).logits[0]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("plan", OWN)
def test_a_plan_gives_the_logits_of_transformers_with_the_same_parameters(plan: str, order: str) -> None:
    with recording() as record:
        context = loaded().read(LONG, f"{plan} | {order}")
        answered = ask(context, QUESTIONS[0], "single")[0].context
    assert answered.seen > 1.5 * TRAINED
    truth = one_forward(short(rope_parameters=OWN[plan]), answered)
    for passed in record.of(context, answered):
        assert difference(passed.logits, truth[passed.start : passed.start + passed.logits.shape[0]]) <= TOLERANCE
    assert difference(one_forward(short(), answered), truth) > 100 * TOLERANCE, "extending must matter"


def test_generate_goes_on_at_the_contexts_own_positions() -> None:
    model = loaded()
    context = model.read(LONG, "yarn(factor=4)")
    asked = context.ask(QUESTIONS[0], max_new_tokens=12)
    inputs = context.inputs(QUESTIONS[0])
    out = farspan.prepare(short()).generate(**inputs, max_new_tokens=12, do_sample=False)
    assert tuple(out[0, inputs["input_ids"].shape[1] :].tolist()) == asked.token_ids


# -- models with positions of their own kind -----------------------------------------------------------------------


@pytest.mark.parametrize("own", ["llama3", "yarn", "linear"])
def test_a_method_stretches_what_the_model_was_trained_with(own: str) -> None:
    parameters = {
        "llama3": {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
        "yarn": {"original_max_position_embeddings": 64},
        "linear": {},
    }[own]
    changed = {"rope_parameters": {"rope_type": own, "factor": 2.0, "rope_theta": 10_000.0, **parameters}}
    plain = short(**changed)
    rotary = next(module for module in plain.modules() if type(module).__name__.endswith("RotaryEmbedding"))
    context = loaded(**changed).read(LONG, "linear(factor=4)")
    assert context.positions.placement is not None
    (inverse, scale) = context.positions.placement.ropes[""]
    assert inverse == pytest.approx((rotary.inv_freq / 4).tolist()) and scale == rotary.attention_scaling
    with recording() as record:
        answered = ask(context, QUESTIONS[0], "single")[0].context
    rotary.inv_freq = rotary.inv_freq / 4
    truth = one_forward(plain, answered)
    for passed in record.of(answered):
        assert difference(passed.logits, truth[passed.start : passed.start + passed.logits.shape[0]]) <= TOLERANCE


@pytest.mark.parametrize("own", ["dynamic", "longrope"])
def test_frequencies_that_depend_on_length_cannot_change_under_cached_keys(own: str) -> None:
    """Hugging Face's own cached run changes them when it crosses the boundary; ours has decided before it begins."""
    parameters: dict[str, Any] = {"factor": 2.0}
    if own == "longrope":
        parameters = {
            "short_factor": [1.0 + i / 8 for i in range(8)], "long_factor": [1.0 + i for i in range(8)], "factor": 4.0,
            "original_max_position_embeddings": TRAINED // 2,
        }  # fmt: skip
    changed = {"rope_parameters": {"rope_type": own, "rope_theta": 10_000.0, **parameters}}
    model = loaded(**changed)
    begun = model.read(SHORT, "yarn(factor=4)")
    assert begun.seen < TRAINED
    with recording() as record:
        grown = begun.append(LONG)
        answered = ask(grown, QUESTIONS[0], "single")[0].context
    assert answered.seen > 2 * TRAINED
    truth = one_forward(told(short(rope_parameters={"rope_type": "default", "rope_theta": 10_000.0}), begun), answered)
    for passed in record.of(grown, answered):
        assert difference(passed.logits, truth[passed.start : passed.start + passed.logits.shape[0]]) <= TOLERANCE


def test_layers_that_only_slide_keep_their_own_frequencies() -> None:
    context = loaded("gemma3").read(LONG, "linear(factor=4)")
    assert context.positions.placement is not None
    assert set(context.positions.placement.ropes) == {"full_attention"}
    fixed, plain = context.positions.modules[0], loaded("gemma3").read(LONG).positions.modules[0]
    assert torch.equal(fixed.sliding_attention_inv_freq, plain.sliding_attention_inv_freq)
    assert torch.allclose(fixed.full_attention_inv_freq * 4, plain.full_attention_inv_freq)


def test_rotated_dimensions_alone_are_stretched() -> None:
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}
    model = loaded("phi3", rope_parameters=rope)
    context = model.read(LONG, "linear(factor=4)")
    assert context.positions.placement is not None
    (inverse, _) = context.positions.placement.ropes[""]
    assert len(inverse) == 4, "half of a head of 16 is rotated, in pairs"
    with recording() as record:
        answered = ask(context, QUESTIONS[0], "single")[0].context
    truth = one_forward(told(short("phi3", rope_parameters=rope), context), answered)
    for passed in record.of(answered):
        assert difference(passed.logits, truth[passed.start : passed.start + passed.logits.shape[0]]) <= TOLERANCE


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("gpt2", "GPT2LMHeadModel learned 1024 positions and has no others"),
        ("opt", "OPTForCausalLM learned 1024 positions and has no others"),
        ("mistral", r"all 3 layers of this model have a sliding window of their own \(24 tokens\)"),
    ],
)
def test_a_model_with_nothing_to_stretch_is_refused_with_the_reason(kind: str, reason: str) -> None:
    model = farspan.load(tiny(kind, vocab_size=len(tiny_tokenizer())), tokenizer=tiny_tokenizer())
    with pytest.raises(PlanDoesNotApply, match=f"yarn does not apply: {reason}"):
        model.read(LONG, "yarn(factor=4)")


# -- decided once --------------------------------------------------------------------------------------------------


def test_the_factor_is_what_the_context_needs() -> None:
    model = loaded()
    within, beyond = model.read(SHORT, "yarn", length=100), model.read(LONG, "yarn", length=512)
    for context, factor in ((within, 1.0), (beyond, 4.0)):
        assert context.positions.placement is not None and context.positions.placement.factor == factor
    plain = model.read(SHORT).positions
    at = torch.arange(100)
    assert all(torch.equal(a, b) for a, b in zip(within.positions.angles(at), plain.angles(at), strict=True))


def test_a_context_does_not_outgrow_the_length_that_its_frequencies_were_decided_for() -> None:
    model = loaded()
    tokens = model.read(LONG).seen
    context = model.read(LONG, "ntk", length=tokens + 40)
    with pytest.raises(CapacityError, match=r"appending .* decided for \d+ \(ntk frequencies depend on the length\)"):
        context.append(MIDDLE)
    short_text = model.read(SHORT, "ntk", length=100)
    assert short_text.ask(QUESTIONS[0], max_new_tokens=4).text is not None, "up to the trained length it may go on"
    given = model.read(LONG, "ntk(factor=4)", length=tokens + 40)
    assert given.append(MIDDLE).seen > tokens + 40, "a factor that was given is no bound"


def test_texts_that_need_different_factors_are_read_as_if_alone() -> None:
    model = loaded()
    texts = [LONG, SHORT, MIDDLE]
    for context, text in zip(model.read_batch(texts, "yarn"), texts, strict=True):
        alone = model.read(text, "yarn")
        assert context.positions.placement == alone.positions.placement
        answers = [each.ask(QUESTIONS[0], max_new_tokens=8).token_ids for each in (context, alone)]
        assert answers[0] == answers[1]


def test_contexts_placed_differently_share_no_forward_pass() -> None:
    model = loaded()
    one, two = model.read(LONG, "yarn", length=600), model.read(MIDDLE, "yarn", length=500)
    with pytest.raises(CapacityError, match=r"read for \[500, 600\] positions"):
        model.inputs([one, two], list(QUESTIONS[:2]))
    with pytest.raises(CapacityError, match=r"different positions \(ntk, yarn\); ask them one by one"):
        model.inputs([one, model.read(MIDDLE, "ntk", length=600)], list(QUESTIONS[:2]))
    with pytest.raises(CapacityError, match=r"different positions \(default, yarn\)"):
        model.inputs([model.read(MIDDLE), one], list(QUESTIONS[:2]))
    given = [model.read(text, "yarn(factor=4)") for text in (LONG, MIDDLE)]
    inputs = model.inputs(given, list(QUESTIONS[:2]))
    out = model.hf.generate(**inputs, max_new_tokens=6, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    for row, context, question in zip(out.tolist(), given, QUESTIONS, strict=False):
        alone = context.ask(question, max_new_tokens=6)
        assert tuple(row[: len(alone.token_ids)]) == alone.token_ids


# -- files ---------------------------------------------------------------------------------------------------------


def test_an_opened_context_has_the_very_frequencies_it_was_read_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded()
    context = model.read(LONG, "yarn")
    asked = context.ask(QUESTIONS[0], max_new_tokens=12)
    context.save(tmp_path / "long.ctx")

    def otherwise(*args: Any) -> Any:
        raise AssertionError("frequencies come from the file, whatever the method would say today")

    monkeypatch.setattr(Yarn, "stretch", otherwise)
    opened = loaded().open(tmp_path / "long.ctx")
    assert opened.positions.describe() == context.positions.describe()
    assert opened.positions.agrees(context.positions)
    at = torch.arange(400)
    assert all(
        torch.equal(a, b) for a, b in zip(opened.positions.angles(at), context.positions.angles(at), strict=True)
    )
    assert opened.ask(QUESTIONS[0], max_new_tokens=12).token_ids == asked.token_ids
    with pytest.raises(CapacityError, match="yarn frequencies depend on the length"):
        opened.ask(QUESTIONS[0] * 800)


def test_what_a_file_says_of_positions_is_plain_json() -> None:
    described = loaded().read(LONG, "yarn(factor=4)").positions.describe()
    assert json.loads(json.dumps(described))["placement"]["factor"] == 4.0


# -- what others reckon with ---------------------------------------------------------------------------------------


def test_keys_are_moved_by_the_contexts_own_frequencies() -> None:
    model = loaded()
    context = model.read(LONG, "yarn(factor=4)", length=600)
    runtime = model.runtime(context.positions)
    keys = torch.randn(2, 5, 16)
    at, to = torch.tensor([3, 5, 8, 100, 300]), torch.tensor([90, 5, 0, 500, 17])
    for moved in (runtime.place(keys, at, to, 0), runtime.rotate(keys, to - at, 0)):
        assert torch.allclose(moved, turned(keys, to - at, context), atol=1e-5)
    plain = model.runtime(model.read(LONG).positions).rotate(keys, to - at, 0)
    assert not torch.allclose(plain, moved, atol=1e-2)


def turned(keys: torch.Tensor, moves: torch.Tensor, context: Context) -> torch.Tensor:
    """Complex numbers: dimension i of the first half is the real part, of the second the imaginary."""
    assert context.positions.placement is not None
    inverse = torch.tensor(context.positions.placement.ropes[""].inverse, dtype=torch.float64)
    half = keys.shape[-1] // 2
    numbers = torch.complex(keys[..., :half].double(), keys[..., half:].double())
    numbers = numbers * torch.polar(torch.ones(1, dtype=torch.float64), moves[:, None].double() * inverse)
    return torch.cat([numbers.real, numbers.imag], -1).float()
