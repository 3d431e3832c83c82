"""Recall is the share of full attention that falls on what a step reads: against the definition, and through ask."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from farspan.attention.fetched import Gather
from farspan.cache import LayerCache
from farspan.errors import OptionError
from farspan.runtime.recall import covered
from tests.oracle.situations import LONG, QUESTIONS, pair

pytestmark = pytest.mark.usefixtures("poisoned")


@given(seed=st.integers(0, 2**31), held=st.integers(1, 30), old=st.integers(0, 3), tokens=st.integers(1, 4))
def test_coverage_is_the_definition(seed: int, held: int, old: int, tokens: int) -> None:
    g = torch.Generator().manual_seed(seed)
    heads, group, size = 2, 2, 4
    layer = LayerCache(0)
    keys = torch.randn(heads, held + old + tokens, size, generator=g)
    layer.tail.append(keys[:, :held], keys[:, :held], 0)
    layer.seal_tail(None)
    layer.tail.append(keys[:, held:], keys[:, held:], held)
    query = torch.randn(heads * group, tokens, size, generator=g)
    bits = torch.rand(heads, held, generator=g) < 0.4
    gather = Gather(layer.extents[0], tuple(its.nonzero()[:, 0] for its in bits))
    found = covered(layer, query, held + old, 0.6, [gather])
    for q in range(heads * group):
        for t in range(tokens):
            seen = held + old + t + 1
            weights = (keys[q // group, :seen] @ query[q, t] * 0.6).double().softmax(0)
            read = torch.cat([bits[q // group], torch.ones(seen - held, dtype=torch.bool)])
            assert float(found[q, t]) == pytest.approx(float(weights[read].sum()), abs=1e-5)


def test_an_answer_says_what_its_steps_covered() -> None:
    model, _ = pair("llama")
    answers = {
        plan: model.read(LONG, plan).ask(QUESTIONS[0], max_new_tokens=4, recall=True)
        for plan in ("topk:16(recent=8)", "topk:64(recent=8)", "quest:64(page=16, recent=8)", "topk:9999")
    }
    recall = {plan: answer.recall for plan, answer in answers.items()}
    few, more, pages, everything = (its or () for its in recall.values())
    assert [each.layer for each in few] == [0, 1, 2]
    for a, b, c, d in zip(few, more, pages, everything, strict=True):
        assert 0 < a.least <= a.mass < b.mass <= 1 and c.mass < b.mass, "no other 64 entries cover more than the best"
        assert a.read < b.read < b.held == d.read == d.held
        assert d.mass == pytest.approx(1, abs=1e-6)
    plain = model.read(LONG, "topk:16(recent=8)").ask(QUESTIONS[0], max_new_tokens=4)
    assert plain.recall is None and plain.token_ids == answers["topk:16(recent=8)"].token_ids


def test_recall_needs_a_plan_that_fetches() -> None:
    model, _ = pair("llama")
    with pytest.raises(OptionError, match=r"'full' reads all that it holds at every step.*such as topk:2048"):
        model.read(LONG).ask(QUESTIONS[0], recall=True)
