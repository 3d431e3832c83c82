"""Scores that are capped, and sinks that take weight: Gemma 2 and GPT-OSS, whatever a softmax is merged from."""

from __future__ import annotations

import pytest
import torch

from farspan.attention import Merger
from farspan.attention.scaling import Scaling, sinks_of, softcap_of
from farspan.testing import SCALED
from tests.oracle.recording import TOLERANCE, agreement, recording
from tests.oracle.situations import LONG, MIDDLE, QUESTIONS, SHORT, ask, pair

PLANS = (
    "stream(chunk=64)",
    "layerwise(chunk=64)",
    "snapkv:40(window=8) | stream(chunk=64)",
    "h2o:40 | int8 | stream(chunk=64)",
    "snapkv:25%(window=8) | adakv | stream(chunk=64)",
    "ashape(sinks=3, window=20) | stream(chunk=64)",
    "topk:20(recent=8) | int8 | stream(chunk=64)",
)


def test_a_number_says_nothing_more():
    assert softcap_of(0.25) is None and sinks_of(0.25) is None
    made = Scaling(0.25, softcap=50.0, sinks=torch.ones(2, dtype=torch.bfloat16))
    sinks = sinks_of(made)
    assert made == 0.25 and softcap_of(made) == 50.0 and sinks is not None and sinks.dtype == torch.float32


@pytest.mark.parametrize("kind", SCALED)
def test_what_is_special_about_the_model_is_found(kind: str):
    model, _ = pair(kind)
    scalings = [layer.scaling for layer in model.layout.layers]
    assert all((softcap_of(s) == 3.0) == (kind == "gemma2") for s in scalings)
    assert all((sinks_of(s) is not None) == (kind == "gpt_oss") for s in scalings)


@pytest.mark.parametrize("kind", SCALED)
def test_answers_have_the_ids_of_the_models_own_code(kind: str):
    model, twin = pair(kind)
    twin.set_attn_implementation("eager")
    contexts = model.read_batch([LONG, SHORT, MIDDLE])
    for context in contexts:
        for question, answer in zip(QUESTIONS, context.ask(list(QUESTIONS), max_new_tokens=8), strict=True):
            ids = torch.cat([context.token_ids.long(), context._question(question)])
            own = twin.generate(ids[None], max_new_tokens=8, do_sample=False, attention_mask=torch.ones_like(ids)[None])
            assert list(answer.token_ids) == own[0, ids.numel() :].tolist()


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("kind", SCALED)
def test_every_way_to_attend_is_the_replay(kind: str, plan: str):
    model, twin = pair(kind)
    with recording() as record:
        context = model.read_batch([LONG], plan, trace=True)[0]
        first = ask(context, QUESTIONS[0], "packed")[0]
        second = ask(first.context, QUESTIONS[1], "single")[0]
    whole = (context, first.context, second.context)
    conversation = whole[1:] if "layerwise" in plan else whole
    assert agreement(twin, record, *conversation) <= TOLERANCE


@pytest.mark.parametrize("kind", SCALED)
def test_without_a_context_the_model_is_what_it_was(kind: str):
    model, twin = pair(kind)
    twin.set_attn_implementation("eager")
    ids = torch.arange(3, 80)[None]
    mask = torch.ones_like(ids)
    ours, own = (m.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False) for m in (model.hf, twin))
    assert ours.tolist() == own.tolist()
    padded = torch.cat([torch.zeros(1, 9, dtype=torch.int64), ids[:, :-9]], 1)
    batch, seen = torch.cat([ids, padded]), torch.cat([mask, (padded > 0).long()])
    with torch.inference_mode():
        ours, own = (m(batch, attention_mask=seen).logits[:, -1] for m in (model.hf, twin))
    torch.testing.assert_close(ours, own, atol=1e-4, rtol=1e-4)


def test_sinks_take_their_weight_once_from_merged_parts():
    g = torch.Generator().manual_seed(1)
    scores, values = torch.randn(1, 2, 3, 10, generator=g), torch.randn(1, 10, 4, generator=g)
    sinks = torch.tensor([0.5, -torch.inf])
    merger = Merger(1, 2, 3, 4, torch.device("cpu"))
    for part in (slice(0, 3), slice(3, 10)):
        lse = scores[..., part].logsumexp(-1)
        merger.add(scores[..., part].softmax(-1) @ values[:, None, part], lse, slice(0, 1), slice(0, 3))
    with_sink = torch.cat([scores, sinks[None, :, None, None].expand(1, 2, 3, 1)], -1).softmax(-1)[..., :-1]
    out = merger.finished(Scaling(1.0, sinks=sinks), torch.float32)
    torch.testing.assert_close(out, (with_sink @ values[:, None])[0].transpose(0, 1))
