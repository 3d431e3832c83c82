"""Passes of an answer share what they can, and none of it shows in what comes out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import CohereConfig, CohereForCausalLM, LlamaConfig, LlamaForCausalLM, LogitsProcessor

import farspan
from farspan.errors import UnsupportedModel
from farspan.runtime import positions
from farspan.runtime.hf_cache import FarspanCache
from farspan.runtime.hf_inspect import prepare_model
from farspan.runtime.hf_sampling import Sampling
from farspan.runtime.step import Row, Step
from tests.models import KINDS, tiny, tiny_tokenizer

TEXT = "The gateway listens on port 8443, and the archive keeps every letter for seven years. " * 4


class Noted(LogitsProcessor):
    """Keeps the logits of every token."""

    def __init__(self) -> None:
        self.logits: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.logits.append(scores[0].clone())
        return scores


def answered(model: farspan.Model, plan: str, questions: list[str], tokens: int) -> Tensor:
    """[passes, V]: the logits behind answers that end at different lengths."""
    noted = Noted()
    context = model.read(TEXT, plan=plan)
    limits = [tokens - 7 * i for i in range(len(questions))]
    context.ask(questions, max_new_tokens=limits, logits_processor=[noted])
    return torch.stack(noted.logits)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("questions", [1, 3])
def test_passes_that_share_give_what_passes_apart_give(kind, questions, monkeypatch):
    model = farspan.load(tiny(kind, vocab_size=len(tiny_tokenizer())), tokenizer=tiny_tokenizer())
    asked = ["Which port does the gateway use?", "How long?", "How many letters are kept, and why?"][:questions]
    shared = answered(model, "full", asked, 24)
    monkeypatch.setattr(Step, "repeats", lambda self, rows: False)
    monkeypatch.setattr(positions, "AHEAD", 1)
    model = farspan.load(tiny(kind, vocab_size=len(tiny_tokenizer())), tokenizer=tiny_tokenizer())
    assert torch.equal(shared, answered(model, "full", asked, 24))


@pytest.mark.parametrize("plan", ["int4", "snapkv:48(decode=64)", "topk:16", "int8 | offload"])
def test_so_under_plans_whose_entries_seal_move_or_are_chosen(plan, monkeypatch):
    model = farspan.load(tiny("llama", vocab_size=len(tiny_tokenizer())), tokenizer=tiny_tokenizer())
    asked = ["Which port does the gateway use?", "How long?"]
    shared = answered(model, plan, asked, 150)
    monkeypatch.setattr(Step, "repeats", lambda self, rows: False)
    assert torch.equal(shared, answered(model, plan, asked, 150))


def test_a_run_of_angles_has_those_of_each_position():
    model = farspan.load(tiny("llama", vocab_size=len(tiny_tokenizer())), tokenizer=tiny_tokenizer())
    spec = model.runtime(model.read(TEXT).positions).positions
    computed = []

    def compute(ids: Tensor) -> tuple[Tensor, Tensor]:
        computed.append(ids.numel())
        return positions.rotary(spec.modules[0], ids, None)

    for position in (5, 6, 68, 69, 4, 1000):
        got, its = spec.ahead.at(position, "test", compute), spec.angles(torch.tensor([position]))
        assert all(torch.equal(a[0], b) for a, b in zip(got, its, strict=True))
    assert computed == [64] * 4, "a run from 5 on has 68, and neither 69 nor 4"


class Clamped(LlamaForCausalLM):
    """Does something to its logits that shows on large ones alone."""

    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        out.logits = out.logits.clamp(-9, 9)
        return out


@pytest.mark.parametrize("kind", ["plain", "scaled", "clamped"])
def test_logits_are_the_models_own_whatever_it_does_to_them(kind):
    model = {"scaled": CohereForCausalLM, "clamped": Clamped, "plain": LlamaForCausalLM}[kind](
        {"scaled": CohereConfig, "clamped": LlamaConfig, "plain": LlamaConfig}[kind](
            vocab_size=90, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, pad_token_id=0,
        )
    ).eval()  # fmt: skip
    ids = torch.arange(30)
    prepared = prepare_model(model)
    with torch.inference_mode():
        hidden = prepared.forward(ids, Step([Row(prepared.layout.empty(), 30)]))
        own = model.lm_head(100 * hidden)
        own = {"scaled": own * 0.0625, "clamped": own.clamp(-9, 9), "plain": own}[kind]
        assert own.abs().max() > 9 or kind != "plain", "nothing would be clamped"
        assert torch.equal(prepared.logits(100 * hidden), own)


@settings(max_examples=50)
@given(numbers=st.lists(st.sampled_from([-1.0, 0.5, 2.0, float("inf")]), min_size=1, max_size=200))
def test_of_equally_likely_tokens_the_first_is_chosen(numbers):
    chooser = Sampling(max_new_tokens=1, eos=frozenset())
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        chosen = chooser.choose(torch.tensor(numbers, dtype=dtype), lambda: torch.empty(0), chooser.generator())
        assert chosen == numbers.index(max(numbers))


def test_keys_cannot_go_past_the_cache():
    cache = FarspanCache(2, positions.PositionSpec("none", 8, None, False))
    with pytest.raises(UnsupportedModel, match="past its cache"):
        cache.layers[1].update(torch.zeros(1, 1, 1, 8), torch.zeros(1, 1, 1, 8))
