"""What stands beside ours is plain transformers, and leaves no trace."""

from __future__ import annotations

import pytest
import torch

from farspan.measure.bench import bench
from farspan.runtime.hf_plain import Plain
from tests.measure.situations import FILL, subject
from tests.models import tiny


@pytest.mark.parametrize("kind", ["llama", "gemma3", "gpt2"])
def test_the_peer_answers_as_a_model_that_we_never_touched(kind: str) -> None:
    model = subject(kind).model
    context = model.read(FILL * 8)
    question = model.prompts.question("Why?", last=None, eos=model.eos)
    plain = Plain(model.runtime(context.positions).prepared)
    ids = context.token_ids.long()
    first, again = (plain.ask(plain.read(ids)[0], ids, question, 6) for _ in range(2))
    untouched = tiny(kind, vocab_size=len(model.tokenizer))
    out = untouched.generate(
        torch.cat([ids, question])[None], max_new_tokens=6, do_sample=False, eos_token_id=2**31 - 1
    )
    assert first.tokens == again.tokens == tuple(out[0, -6:].tolist()) and 0 < first.first < first.total
    assert model.hf.config._attn_implementation == "farspan", "and ours is back"
    assert context.ask("Why?", max_new_tokens=6).text is not None


def test_ours_is_back_after_an_error() -> None:
    model = subject().model
    plain = Plain(model.runtime(model.read(FILL).positions).prepared)
    with pytest.raises(IndexError):
        plain.read(torch.full((4,), 10**6))
    assert model.hf.config._attn_implementation == "farspan"


def test_every_round_measures_all_in_turn() -> None:
    told: list[tuple[int, int]] = []
    found = bench(
        subject().model, ["full", "int8"], tokens=100, answer=3, repeats=2, progress=lambda *d: told.append(d)
    )
    assert told == [(i + 1, 9) for i in range(9)] and found.same_answer
    assert [speed.name for speed in found.plans] == ["full", "int8"]
