"""Left-padded rows under plain `generate` equal their single runs, whatever each has evicted."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from farspan.errors import CapacityError, OptionError, UsageError
from farspan.testing import SCALED
from tests.oracle.recording import TOLERANCE
from tests.oracle.replay import difference, replay
from tests.oracle.situations import KINDS, LONG, MIDDLE, QUESTIONS, SHORT, pair

PLANS = (
    "full",
    "int8",
    "snapkv:40(window=8)",
    "adakv:40 | h2o(recent=8, decode=50) | int8(residual=16)",
    "ems:48 | globallocal(window=8, decode=50)",
    "pod(sinks=4, recent=8)",
    "spatten_heads:48(decode=50)",
)
ASKED = [QUESTIONS[2], QUESTIONS[1] + " Say it again, with the number of the page.", QUESTIONS[0]]
TOKENS = 60


def generate(model: Any, inputs: dict[str, Any]) -> tuple[list[list[int]], torch.Tensor]:
    """-> the new tokens of every row, and their logits [B, TOKENS, V]."""
    out = model.hf.generate(
        **inputs,
        max_new_tokens=TOKENS,
        do_sample=False,
        suppress_tokens=[2],
        return_dict_in_generate=True,
        output_logits=True,
    )
    start = inputs["input_ids"].shape[1]
    return out.sequences[:, start:].tolist(), torch.stack(out.logits, 1)


@pytest.mark.parametrize(
    ("kind", "plan"),
    [*(("llama", p) for p in PLANS), *((kind, PLANS[2 * (kind != "mistral")]) for kind in (*KINDS[1:], *SCALED))],
)
def test_padded_rows_of_several_contexts_equal_their_single_runs(kind: str, plan: str) -> None:
    model, _ = pair(kind)
    contexts = model.read_batch([SHORT, LONG, MIDDLE], plan, trace=True)
    inputs = model.inputs(contexts, ASKED)
    assert not bool(inputs["attention_mask"].all()), "there is padding"
    before = [context.held_bytes for context in contexts]
    together, logits = generate(model, inputs)
    for row, (context, question) in enumerate(zip(contexts, ASKED, strict=True)):
        alone, its = generate(model, context.inputs(question))
        assert together[row] == alone[0]
        assert difference(logits[row], its[0]) <= 1e-4
        single = inputs["past_key_values"].sequences[row]
        assert single.seen == context.seen + len(context._question(question)) + TOKENS - 1, "no pad counts as seen"
    assert [context.held_bytes for context in contexts] == before


@pytest.mark.parametrize("plan", PLANS)
def test_the_oracle_replays_padded_rows(plan: str) -> None:
    model, twin = pair("llama")
    contexts = model.read_batch([SHORT, LONG, MIDDLE], plan, trace=True)
    inputs = model.inputs(contexts, ASKED)
    _, logits = generate(model, inputs)
    for row, sequence in enumerate(inputs["past_key_values"].sequences):
        assert sequence.events is not None
        truth = replay(twin, sequence.ids(), sequence.events.log)[-TOKENS:]
        assert difference(logits[row], truth) <= TOLERANCE


def test_several_questions_to_one_context_are_rows_that_share_it() -> None:
    model, _ = pair("llama")
    context = model.read(LONG, "snapkv:40(window=8)")
    together, _ = generate(model, context.inputs(ASKED))
    assert together == [generate(model, context.inputs(question))[0][0] for question in ASKED]
    assert together == [list(answer.token_ids) for answer in _asked(context)]


def _asked(context: Any) -> Any:
    from transformers import LogitsProcessorList, SuppressTokensLogitsProcessor

    never_ending = LogitsProcessorList([SuppressTokensLogitsProcessor([2])])
    return context.ask(ASKED, max_new_tokens=TOKENS, logits_processor=never_ending)


def test_what_does_not_fit_together_is_refused() -> None:
    model, _ = pair("llama")
    contexts = model.read_batch([SHORT, LONG], "snapkv:40(window=8)")
    with pytest.raises(UsageError, match="2 contexts and 1 questions; give one of each"):
        model.inputs(contexts, ["Why?"])
    inputs = model.inputs(contexts, ["Why?", "Which port does the gateway use?"])
    right = inputs["attention_mask"].clone()
    right[0, -1] = 0
    with pytest.raises(OptionError, match="padded on the left"):
        model.hf.generate(**{**inputs, "attention_mask": right}, max_new_tokens=3)
    inputs = contexts[0].inputs("Why?")
    with pytest.raises(OptionError, match="a batch of 2 rows reached a farspan context of 1"):
        model.hf.generate(**inputs, max_new_tokens=3, num_beams=2)
    inputs = model.inputs(contexts, ["Why?", "Which port?"])
    with pytest.raises(CapacityError, match="the next position of this context"):
        model.hf.generate(**{**inputs, "position_ids": inputs["position_ids"] + 1}, max_new_tokens=3)
