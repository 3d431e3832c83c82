"""Contexts that were read apart stand together: what they hold, where it stands, and what cannot be composed."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

import farspan
from farspan.cache import SequenceCache
from farspan.composition import pieces_of
from farspan.context import Context
from farspan.errors import CapacityError, ForeignContext, PlanDoesNotApply, PlanError, UsageError
from farspan.model import Model
from farspan.plan import Plan
from farspan.runtime.step import Row, Step
from farspan.text import Document
from tests.models import WINDOW, tiny, tiny_tokenizer
from tests.oracle.composed import templated_pair
from tests.oracle.situations import LONG, MIDDLE, QUESTIONS, SHORT, pair

TEXTS = (LONG, SHORT, MIDDLE)


@pytest.fixture
def model() -> Model:
    return pair("llama")[0]


def held(cache: SequenceCache) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Per layer: keys and values [H, N, D] of layers that hold the same of every head, and positions [N]."""
    out = []
    for layer in cache.layers:
        heads = 2
        parts = [tuple(t.unflatten(0, (heads, -1)) for t in extent.entries()) for extent in layer.extents]
        if len(layer.tail):
            parts.append((layer.tail.keys, layer.tail.values, layer.tail.positions().expand(heads, -1)))
        out.append(tuple(torch.cat(column, 1) for column in zip(*parts, strict=True)))
    return out


def same(a: SequenceCache, b: SequenceCache, tolerance: float) -> bool:
    """Equal but for rounding, relative to the largest entry."""
    for one, two in zip(held(a), held(b), strict=True):
        if not torch.equal(one[2], two[2]):
            return False
        if any((x - y).abs().max() > tolerance * y.abs().max() for x, y in zip(one[:2], two[:2], strict=True)):
            return False
    return True


def test_three_contexts_opened_from_files_answer_together(tmp_path: Path) -> None:
    model = farspan.load()
    facts = {
        "port": "The gateway listens on port 4817.\n",
        "letters": "The archive keeps every letter for seven years.\n",
        "password": "The password for misty-meadow is golden falcon.\n",
    }
    for name, text in facts.items():
        model.read(Document(text=text, source=f"{name}.txt")).save(tmp_path / f"{name}.ctx")
    together = model.compose([model.open(tmp_path / f"{name}.ctx") for name in facts])
    assert together.ask("What is the password for misty-meadow?", max_new_tokens=8).text == "golden falcon"
    assert together.ask("Which port does the gateway listen on?", max_new_tokens=8).text == "4817"
    sources = [segment.source for segment in together.tokens.segments()]
    assert sources == [f"{name}.txt" for name in facts]
    last = together.locate(together.seen - 1)
    assert last is not None and (last.document, last.source) == (2, "password.txt")
    assert last.end == len(facts["password"])


@pytest.mark.parametrize("pair_of", [pair, templated_pair])
def test_every_token_but_the_openings_of_later_pieces_is_there_once(pair_of) -> None:
    model, _ = pair_of("llama")
    apart = model.read_batch(TEXTS)
    together = model.compose(apart)
    opening = model.prompts.prefix().numel()
    assert (opening > 0) == (pair_of is templated_pair)
    wanted = torch.cat([apart[0].token_ids, *(context.token_ids[opening:] for context in apart[1:])])
    assert torch.equal(together.token_ids, wanted)
    assert together.seen == together.next_position == together.held == wanted.numel()
    assert all(p.tolist() == list(range(together.seen)) for view in together.inspect() for p in view.positions)
    for context, text in zip(apart, TEXTS, strict=True):
        (segment,) = context.tokens.segments()
        mine = [s for s in together.tokens.segments() if s.token_end - s.token_start == segment.token_end - opening]
        assert len(mine) == 1 and mine[0].end == len(text)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "phi3"])
def test_keys_are_those_of_pieces_read_where_they_stand_now(kind: str) -> None:
    """The naive twin: the same tokens fed from the position that a piece has in the whole."""
    model, _ = templated_pair(kind)
    apart = model.read_batch(TEXTS)
    together = model.compose(apart)
    opening, runtime = model.prompts.prefix().numel(), model.runtime(together.positions)
    at = 0
    for context in apart:
        cache = model.layout.empty()
        cache.next_position = at - opening if at else 0
        with torch.inference_mode():
            step = Step([Row(cache, context.seen)])
            runtime.forward(context.token_ids, step)
        start = opening if at else 0
        stop = at + context.seen - start
        for mine, twin in zip(held(together._cache), held(cache), strict=True):
            for x, y in zip(mine[:2], twin[:2], strict=True):
                assert (x[:, at:stop] - y[:, start:]).abs().max() < 1e-4 * y.abs().max()
        at = stop


def test_what_is_composed_stays_as_it_was_and_what_does_not_move_is_shared(model: Model) -> None:
    apart = model.read_batch(TEXTS)
    before = [(c.seen, c.held_bytes, c.token_ids.tolist(), c.inspect()[0].positions[0].tolist()) for c in apart]
    keys = apart[1]._cache.layers[0].extents[0].entries()[0].clone()
    together = model.compose(apart)
    together.ask(QUESTIONS[0], max_new_tokens=3)
    assert before == [(c.seen, c.held_bytes, c.token_ids.tolist(), c.inspect()[0].positions[0].tolist()) for c in apart]
    assert torch.equal(keys, apart[1]._cache.layers[0].extents[0].entries()[0])
    firsts = [(a.extents[0], b.extents[0]) for a, b in zip(together._cache.layers, apart[0]._cache.layers, strict=True)]
    assert all(a is b for a, b in firsts)
    values = [c._cache.layers[1].extents for c in (together, apart[1])]
    assert values[0][1].block.values.data_ptr() == values[1][0].block.values.data_ptr(), "only keys are turned"


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_sliding_layers_hold_the_last_tokens_of_as_many_pieces_as_that_takes(order: tuple[int, ...]) -> None:
    model, _ = templated_pair("gemma3")
    texts = ("Where?", "In May.", LONG)
    together = model.compose([model.read(texts[i]) for i in order])
    for view in together.inspect():
        if view.window is not None:
            expected = list(range(together.seen - WINDOW + 1, together.seen))
            assert all(p.tolist() == expected for p in view.positions)


def test_a_whole_of_wholes_is_the_whole(model: Model) -> None:
    a, b, c = model.read_batch(TEXTS)
    one = model.compose([a, b, c])
    for other in (model.compose([model.compose([a, b]), c]), model.compose([a, model.compose([b, c])])):
        assert same(one._cache, other._cache, 1e-4)
        assert one._cache.pieces == other._cache.pieces
        assert one.tokens.to_json() == other.tokens.to_json()
        assert torch.equal(one.token_ids, other.token_ids)


def test_one_context_alone_is_itself(model: Model) -> None:
    context = model.read(LONG, "int8")
    alone = model.compose([context])
    assert same(alone._cache, context._cache, 0.0) and alone.cost.repacked == 0
    assert str(alone.plan) == "int8 | concat"


@pytest.mark.parametrize(("plan", "moves"), [("full", 0), ("int8", 2), ("window:40 | int4(group=16)", 2)])
def test_packed_entries_that_move_are_packed_anew_and_counted(model: Model, plan: str, moves: int) -> None:
    apart = model.read_batch(TEXTS, plan)
    together = model.compose(apart)
    wanted = sum(sum(sum(e.counts) for e in layer.extents) for c in apart[3 - moves :] for layer in c._cache.layers)
    assert together.cost.repacked == (wanted if moves else 0)
    assert together.cost.seen == together.seen and together.cost.tokens == sum(c.cost.tokens for c in apart)
    kinds = {type(e.block) for c in (*apart, together) for layer in c._cache.layers for e in layer.extents}
    assert len(kinds) == 1


def test_what_is_composed_is_saved_and_opened(model: Model, tmp_path: Path) -> None:
    together = model.compose(model.read_batch(TEXTS, "snapkv:40(window=8)"))
    together.save(tmp_path / "all.ctx")
    opened = model.open(tmp_path / "all.ctx")
    assert opened._cache.pieces == together._cache.pieces and opened.plan == together.plan
    answers = [c.ask(QUESTIONS[0], max_new_tokens=8).token_ids for c in (together, opened)]
    assert answers[0] == answers[1]


def test_files_of_before_have_no_pieces() -> None:
    assert pieces_of(Plan.parse("full"), []) is None
    assert pieces_of(Plan.parse("concat"), []) is None


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4), seed=st.integers(0, 3))
def test_whatever_the_lengths_tokens_stand_at_their_number(lengths: list[int], seed: int) -> None:
    model, _ = pair("llama")
    generator = torch.Generator().manual_seed(seed)
    texts = ["".join(chr(97 + int(i)) for i in torch.randint(0, 26, (n,), generator=generator)) for n in lengths]
    apart = [model.read(Document(text=text, source=str(i))) for i, text in enumerate(texts)]
    together = model.compose(apart)
    assert together.seen == together.next_position == sum(context.seen for context in apart)
    assert together._cache.pieces is not None
    edges = [0]
    for context in apart:
        edges.append(edges[-1] + context.seen)
    assert together._cache.pieces.ranges == tuple(itertools.pairwise(edges))
    runtime = model.runtime(together.positions)
    for index, (keys, values, positions) in enumerate(held(together._cache)):
        assert positions.tolist() == [list(range(together.seen))] * 2
        for start, stop, context in zip(edges, edges[1:], apart, strict=False):
            theirs = held(context._cache)[index]
            assert torch.equal(values[:, start:stop], theirs[1])
            turned = runtime.rotate(theirs[0], torch.full((stop - start,), start), index)
            assert torch.allclose(keys[:, start:stop], turned, atol=1e-5, rtol=1e-5)


# -- what cannot be composed -----------------------------------------------------------------------------------------


def test_nothing_and_what_is_no_context_are_refused(model: Model) -> None:
    with pytest.raises(UsageError, match="compose what"):
        model.compose([])
    with pytest.raises(UsageError, match=r"'a\.ctx' is no context; read or open it first"):
        model.compose(["a.ctx"])  # type: ignore[list-item]


def test_the_same_text_twice_is_refused_however_it_got_there(model: Model, tmp_path: Path) -> None:
    context = model.read(Document(text=LONG, source="long.txt"))
    context.save(tmp_path / "a.ctx")
    part = model.read(Document(text=LONG, source="long.txt"), "truncate:50")
    other = model.read(Document(text=SHORT, source="short.txt"))
    for twin in (context, context.fork(), model.open(tmp_path / "a.ctx"), part, model.compose([other, context])):
        with pytest.raises(UsageError, match=r"contexts 1 and 2 both hold the same text of long\.txt"):
            model.compose([context, twin])
    namesake = model.read(Document(text=MIDDLE, source="long.txt"))
    assert model.compose([context, namesake]).seen == context.seen + namesake.seen


def test_another_models_context_is_refused(model: Model) -> None:
    size = len(tiny_tokenizer())
    other = farspan.load(tiny("llama", vocab_size=size, seed=5), tokenizer=tiny_tokenizer())
    with pytest.raises(ForeignContext, match="context 2 was read with"):
        model.compose([model.read(LONG), other.read(SHORT)])
    again = farspan.load(tiny("llama", vocab_size=size), tokenizer=tiny_tokenizer())
    assert model.compose([model.read(LONG), again.read(SHORT)]).seen > 0, "the same model, loaded twice"


def test_a_conversation_is_refused(model: Model) -> None:
    asked = model.read(LONG).ask(QUESTIONS[0], max_new_tokens=3).context
    with pytest.raises(UsageError, match="context 1 holds a conversation"):
        model.compose([asked, model.read(SHORT)])


@pytest.mark.parametrize("plans", [("int8", "full"), ("int8", "int8(group=16)"), ("full", "offload")])
def test_contexts_held_differently_are_refused(model: Model, plans: tuple[str, str]) -> None:
    with pytest.raises(PlanError, match="contexts that stand together are held alike"):
        model.compose([model.read(text, plan) for text, plan in zip(TEXTS, plans, strict=False)])


def test_what_stays_may_have_been_decided_differently(model: Model) -> None:
    plans = ("h2o:40", "full", "snapkv:30(window=8)")
    apart = [model.read(text, plan) for text, plan in zip(TEXTS, plans, strict=True)]
    together = model.compose(apart)
    assert str(together.plan) == "h2o:40 | concat"
    assert together.held == sum(context.held for context in apart)
    layer = together._cache.layers[0]
    assert layer.state["mass"].numel() == sum(layer.held(2)) if "mass" in layer.state else layer.state


@pytest.mark.parametrize("plan", ["snapkv:40", "concat | int8", "full"])
def test_a_plan_that_does_not_say_how_is_refused(model: Model, plan: str) -> None:
    with pytest.raises(PlanError, match="does not say how contexts go together"):
        model.compose([model.read(LONG), model.read(SHORT)], plan)


@pytest.mark.parametrize("kind", ["gpt2", "opt"])
def test_learned_positions_cannot_be_moved(kind: str) -> None:
    model, _ = pair(kind)
    with pytest.raises(PlanDoesNotApply, match="learned its positions, so entries cannot be moved"):
        model.compose(model.read_batch(TEXTS))


def dynamic() -> Model:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tiny_tokenizer()),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0},
    )
    return farspan.load(AutoModelForCausalLM.from_config(config).eval(), tokenizer=tiny_tokenizer())


def test_angles_that_depend_on_length_go_together_for_one_length_that_reaches() -> None:
    model = dynamic()
    with pytest.raises(CapacityError, match="read all of them with the same positions and one length"):
        model.compose([model.read(LONG), model.read(SHORT)])
    with pytest.raises(CapacityError, match="composing 2 contexts needs"):
        model.compose([model.read(LONG, length=250), model.read(SHORT, length=250)])
    together: Context = model.compose([model.read(LONG, length=500), model.read(SHORT, length=500)])
    assert together.positions.length == 500


def test_a_store_that_packs_by_queries_cannot_pack_anew(model: Model) -> None:
    apart = model.read_batch(TEXTS, "zipcache")
    with pytest.raises(PlanDoesNotApply, match="packs by queries"):
        model.compose(apart)
