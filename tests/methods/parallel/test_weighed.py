"""APE and shared sinks on models: where pieces stand, what they are read behind, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from farspan.errors import PlanError
from farspan.plan import Plan
from farspan.text import Document
from tests.oracle.composed import templated_pair
from tests.oracle.situations import LONG, MIDDLE, QUESTIONS, SHORT, pair

DOCUMENTS = [Document(text=text, source=f"{i}.txt") for i, text in enumerate((LONG, SHORT, MIDDLE))]


def test_pieces_of_ape_share_their_positions() -> None:
    """Next to `concat`, whose pieces stand one after another: here the longest piece says how far positions go."""
    model, _ = templated_pair("llama")
    apart = model.read_batch(DOCUMENTS)
    opening = model.prompts.prefix().numel()
    together = model.compose(apart, "ape")
    assert together.seen == sum(c.seen for c in apart) - 2 * opening
    assert together.next_position == max(c.next_position for c in apart) < together.seen
    for one, other in zip(together._cache.layers, apart[2]._cache.layers, strict=True):
        mine, theirs = one.extents[-1].entries(), other.extents[-1].entries()
        its = theirs[2] >= opening
        assert torch.equal(mine[0], theirs[0][its]) and torch.equal(mine[1], theirs[1][its]), "no key is turned"
    after = together.ask(QUESTIONS[0], max_new_tokens=4).context
    assert after.seen - after.next_position == together.seen - together.next_position


def test_learned_positions_can_be_shared() -> None:
    model, _ = pair("gpt2")
    together = model.compose(model.read_batch(DOCUMENTS), "ape")
    assert together.ask(QUESTIONS[0], max_new_tokens=3).usage.seen == together.seen


def test_positions_within_the_trained_length_are_not_beyond_it() -> None:
    model, _ = pair("llama")
    many = [Document(text=f"{i}: {LONG}", source=f"{i}.txt") for i in range(20)]
    context = model.read(many, "ape")
    assert context.seen > 4096 > context.next_position and not context.beyond_trained


def test_every_piece_of_sinks_is_read_behind_the_first_tokens_which_are_kept_once() -> None:
    model, _ = templated_pair("llama")
    opening = model.prompts.prefix().numel()
    context = model.read(DOCUMENTS, "sinks(chunk=60, tokens=5)")
    assert context._cache.pieces is not None
    assert context._cache.pieces.ranges[0][0] == opening + 5
    assert context.held == context.seen and context._cache.pieces.plain
    last = model.read([DOCUMENTS[0], DOCUMENTS[2]], "sinks(chunk=4096, tokens=5)")
    without = model.read([DOCUMENTS[0], DOCUMENTS[2]], "sinks(chunk=4096, tokens=0)")
    values = [c._cache.layers[1].extents[-1].entries()[1] for c in (last, without)]
    assert not torch.allclose(*values, atol=1e-3), "what stands before a piece matters to it"


def test_selection_changes_answers_only_where_there_is_a_choice() -> None:
    model, _ = pair("llama")
    logprobs = {}
    for top in (0, 1, 99):
        context = model.read(DOCUMENTS, f"sinks(chunk=60, top={top})")
        logprobs[top] = torch.tensor(context.score("port 8443", after="The ").logprobs)
    assert torch.equal(logprobs[0], logprobs[99])
    assert (logprobs[0] - logprobs[1]).abs().max() > 1e-3


@pytest.mark.parametrize("plan", ["ape(temperature=0.5, scale=0.8)", "sinks(top=1)"])
def test_what_is_weighed_is_saved_opened_and_packed(plan: str, tmp_path: Path) -> None:
    model, _ = templated_pair("llama")
    context = model.read(DOCUMENTS, f"{plan} | int8")
    context.save(tmp_path / "a.ctx")
    opened = model.open(tmp_path / "a.ctx")
    assert opened._cache.pieces == context._cache.pieces and not opened._cache.pieces.plain
    alone = [c.ask(question, max_new_tokens=6).token_ids for c in (context, opened) for question in QUESTIONS]
    packed = [answer.token_ids for answer in context.ask(list(QUESTIONS), max_new_tokens=6)]
    assert alone[:3] == alone[3:] == packed


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("ape(temperature=0)", "temperature=0 is no number above 0"),
        ("ape(scale=-1)", "scale=-1 is no number above 0"),
        ("sinks(tokens=-1)", "tokens=-1 is no count"),
        ("sinks(top=-2)", "top=-2 is no count"),
        ("sinks(chunk=0)", "chunk=0 holds no token"),
        ("ape | quest:64", "cannot be combined with"),
        ("ape | concat", "both fill the slot 'parallel'"),
    ],
)
def test_parameters_are_checked_when_the_plan_is_built(plan: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Plan.parse(plan)
