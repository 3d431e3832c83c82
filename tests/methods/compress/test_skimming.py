"""Which tokens are read after a skim, against a plain transformers forward, and what is known of them."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import avg_pool1d

from farspan.budget import Budget
from farspan.cache import LayerCache
from farspan.errors import PlanDoesNotApply, PlanError
from farspan.methods.compress._skimming import Skimmed
from farspan.methods.compress.gemfilter import Gemfilter
from farspan.methods.compress.ilre import Ilre
from farspan.plan import Plan
from farspan.runtime.skimming import skim
from farspan.runtime.step import Row, Step
from farspan.testing import check_method
from farspan.text import Document, tokenize
from tests.oracle.situations import LONG, MIDDLE, OTHER, ask, pair

QUESTION = "Which port does the gateway use?"


def skimmed(keys: torch.Tensor, *queries: torch.Tensor) -> Skimmed:
    """One head whose keys [n, D] are asked by queries behind them."""
    held = LayerCache(0)
    whole = torch.cat([keys, torch.zeros(len(queries), keys.shape[1])])[None]
    held.tail.append(whole, whole.clone(), 0)
    at = torch.arange(len(keys), len(keys) + len(queries), dtype=torch.int32)
    return Skimmed(queries=torch.stack(queries)[None], positions=at, scaling=1.0, held=held, first=0, tokens=len(keys))


def test_the_last_query_alone_decides_or_all_of_the_question():
    """Two questions' tokens: the first wants keys 2 and 20, the last a little of key 9, and dislikes none.

    GemFilter hears the last, and takes 9 with its neighbours. ILRe hears both, and attention of 20 times a key is all
    of what a query has: the two keys of the first query share one, key 9 has one.
    """
    eye = torch.eye(32)[:24]
    seen = skimmed(eye, 20 * (eye[2] + eye[20]), 20 * eye[9])
    assert Gemfilter(budget=3, kernel=3).choose(seen, 3).tolist() == [8, 9, 10]
    assert Ilre(budget=3, kernels=1).choose(seen, 3).tolist() == [2, 9, 20]


def test_wide_kernels_bring_passages_and_narrow_ones_single_words():
    """Key 15 is asked for most, 4 next: of eight tokens, the kernel of 3 has four (14-16 and one of 3-5), single ones
    the rest."""
    eye = torch.eye(32)[:24]
    seen = skimmed(eye, 8.0 * eye[15] + 6.0 * eye[4] + 4.0 * eye[22])
    assert Ilre(budget=4, kernels=1).choose(seen, 4).tolist() == [0, 4, 15, 22]
    assert Ilre(budget=6, kernels=2).choose(seen, 6).tolist() == [0, 4, 14, 15, 16, 22]


@pytest.mark.parametrize("opening", [0, 3])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3"])
def test_the_products_are_those_of_a_whole_forward(kind, opening):
    """All layers in one pass, every query head with a copy of its keys; behind a template's opening, or none."""
    model, _ = pair(kind)
    before, text = torch.arange(5, 5 + opening), tokenize(LONG, model.tokenizer)
    asked = model.prompts.question(QUESTION, last=None, eos=model.eos)
    body = model.runtime(model._positions(Plan.parse(None), None, 999))
    method = Gemfilter(budget=Budget.parse(40), layer=1, kernel=3)
    ((_, _, kept),) = skim([(Document(text=LONG), text)], method, before, asked, lambda tokens: body)
    ids, noted = torch.cat([before, torch.from_numpy(text.ids).long(), asked]), {}
    row = Row(model.layout.empty(), len(ids), reading=True)
    with torch.inference_mode():
        body.forward(ids, Step([row], observer=lambda i, q, o: noted.update({i: q})))
    keys = row.cache.layers[1].tail.keys
    wide = keys.repeat_interleave(noted[1].shape[0] // keys.shape[0], 0)
    scores = torch.einsum("hd,hnd->n", noted[1][:, -1], wide)[opening : opening + len(text)]
    pooled = avg_pool1d(scores[None], 3, 1, 1, count_include_pad=False)[0]
    best = pooled.topk(40).indices.sort().values.numpy()
    assert kept.ids.tolist() == text.ids[best].tolist() and kept.spans.tolist() == text.spans[best].tolist()


@pytest.mark.parametrize("plan", ["gemfilter:40", "ilre:40(window=16, sinks=2, queries=5)"])
def test_every_token_that_is_read_knows_where_it_stood(plan):
    model, _ = pair("llama")
    context = model.read([LONG, OTHER], plan, probe=QUESTION)
    texts, ids, read = [LONG, OTHER], context.token_ids, 0
    last = (-1, -1)
    for token in range(context.seen):
        where = context.locate(token)
        if where is None:
            continue
        read += 1
        document = [LONG, OTHER].index(texts[where.document]) if where.document < 2 else -1
        assert (document, where.start) >= last
        last = (document, where.start)
        piece = texts[where.document][where.start : where.end]
        assert model.tokenizer.decode(ids[token : token + 1].tolist()).strip("�") in piece or not piece.isascii()
    assert read == 40


@pytest.mark.parametrize("plan", ["gemfilter:40", "ilre:40(window=16, sinks=2, queries=5)"])
def test_it_answers_goes_on_and_reads_within_the_budget(plan, tmp_path):
    model, _ = pair("llama")
    plain, asked = model.read(LONG, plan), model.read(LONG, plan, probe=QUESTION)
    assert plain.seen == asked.seen and plain.token_ids.tolist() != asked.token_ids.tolist()
    longer = asked.append(MIDDLE, probe=QUESTION)
    assert 0 < longer.seen - asked.seen <= 40 + 4
    opened = model.open(longer.save(tmp_path / "read.ctx"))
    assert ask(opened, QUESTION, "single")[0].token_ids == ask(longer, QUESTION, "single")[0].token_ids
    both = model.read_batch([LONG, MIDDLE], f"{plan} | int8", probes=[QUESTION, None])
    assert both[0].token_ids.tolist() == asked.token_ids.tolist()


def test_a_text_within_the_budget_is_read_as_it_is():
    model, _ = pair("llama")
    for plan in ("gemfilter:4096", "ilre:4096"):
        assert torch.equal(model.read(LONG, plan).token_ids, model.read(LONG).token_ids)


@pytest.mark.parametrize("method", [Gemfilter(kernel=3), Ilre(kernels=2, queries=3)])
def test_the_contract(method):
    check_method(method)


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        ("gemfilter", "budget"),
        ("gemfilter:40(kernel=4)", "kernel=4 has no middle"),
        ("gemfilter:40(layer=-1)", "layer=-1 is no layer"),
        ("ilre:40(kernels=0)", "kernels=0"),
        ("ilre:40(window=0)", "window=0"),
        ("ilre:1MiB", "budget of tokens"),
        ("gemfilter:40 | ilre:40", "both fill the slot 'compress'"),
    ],
)
def test_values_that_mean_nothing_are_refused(plan, why):
    with pytest.raises(PlanError, match=why):
        Plan.parse(plan)


def test_a_layer_that_cannot_be_asked_is_refused():
    with pytest.raises(PlanDoesNotApply, match="asks layer 3, and this model has 3: 0 to 2"):
        pair("llama")[0].read(LONG, "gemfilter:40(layer=3)")
    with pytest.raises(PlanDoesNotApply, match=r"asks layer 2, which sees 24 tokens alone; .*: 1. Name one"):
        pair("gemma3")[0].read(LONG, "ilre:40(layer=2)")
