"""EMS and LOOK-M by hand: four entries go, two stay."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from farspan.budget import Budget
from farspan.errors import DocumentError, PlanError
from farspan.methods.retain.base import Entries, Folder, keep
from farspan.methods.retain.ems import Ems
from farspan.methods.retain.h2o import H2o
from farspan.methods.retain.lookm import Lookm
from farspan.methods.retain.textprior import Textprior
from farspan.plan import Plan
from farspan.text import Document
from tests.oracle.situations import pair
from tests.signals.test_window import observe


def entries(keys: list[list[float]], values: list[float], scores: list[float], first: int = 0) -> Entries:
    at = torch.arange(first, first + len(keys), dtype=torch.int32)
    return Entries(torch.tensor(keys), torch.tensor(values)[:, None], at, torch.tensor(scores))


# Kept: along x, along y. Going: along x and long; in between, nearer to x (cosine 0.8); against both; along y.
KEPT = entries([[1, 0], [0, 1]], [10, 20], [4, 2])
GONE = entries([[3, 0], [4, 3], [-1, -1], [0, 2]], [40, 60, 99, 50], [2, 1, 0.5, 1], first=2)


def folded(folder: Folder) -> tuple[list, list]:
    out = folder.fold(KEPT, GONE)
    assert torch.equal(out.positions, KEPT.positions)
    return out.keys.tolist(), out.values[:, 0].tolist()


def near(got: tuple[list, list], keys: list[list[float]], values: list[float]) -> None:
    torch.testing.assert_close(torch.tensor(got[0]), torch.tensor(keys))
    torch.testing.assert_close(torch.tensor(got[1]), torch.tensor(values))


def test_averaged_merging_is_the_mean_of_a_kept_entry_and_of_all_that_are_most_like_it():
    """x takes the long one, the one between and (the first of equals) the one against both; y takes the last."""
    near(folded(Lookm(merge="averaged")), [[7 / 4, 2 / 4], [0, 1.5]], [209 / 4, 35])


def test_pivotal_merging_goes_half_the_way():
    keys = [[(1 + 2 + 2.5 + 0) / 4, (0 + 0 + 1.5 - 0.5) / 4], [0, (1 + 1.5) / 2]]
    near(folded(Lookm()), keys, [(10 + 25 + 35 + 54.5) / 4, (20 + 35) / 2])


def test_weighted_merging_counts_by_likeness():
    against = -(0.5**0.5)
    keys = [[(1 + 3 + 3.2 - against) / 4, (0 + 2.4 - against) / 4], [0, 1.5]]
    near(folded(Lookm(merge="weighted")), keys, [(10 + 40 + 48 + 99 * against) / 4, 35])


def test_ems_leaves_what_is_like_nothing_to_the_zero_class_and_weighs_by_score():
    """At cosine 0.9 the one between goes to the zero class too; the one against both always does."""
    near(
        folded(Ems(threshold=0.7)),
        [[(4 + 6 + 4) / 7, 3 / 7], [0, (2 + 2) / 3]],
        [(40 + 80 + 60) / 7, (40 + 50) / 3],
    )
    near(folded(Ems(threshold=0.9)), [[10 / 6, 0], [0, 4 / 3]], [120 / 6, 30])


def test_ems_looks_only_at_the_best_of_what_goes():
    near(folded(Ems(threshold=0.7, candidates=0.5)), [[10 / 6, 0], [0, 1]], [20.0, 20])


def test_ems_with_scores_below_zero_still_merges():
    lower = Entries(*GONE[:3], GONE.scores - 100)
    out = Ems(threshold=0.7).fold(Entries(*KEPT[:3], KEPT.scores - 100), lower)
    assert not torch.equal(out.keys, KEPT.keys)


def test_a_kept_entry_that_scored_nothing_is_not_overwritten():
    out = Ems(threshold=0.7).fold(Entries(*KEPT[:3], torch.zeros(2)), GONE)
    torch.testing.assert_close(out.keys[1], torch.tensor([0, (2 * 1 + 1 * 2) / 3]))


def test_text_is_lifted_by_the_most_that_anything_drew():
    """Attention 5 3 1 4, of which 0 and 3 are no text: 5 + 0, 3 + 5, 1 + 5 and 4 + 0. Its sibling keeps 0 and 3."""
    state = {"attention": torch.tensor([[5.0, 3, 1, 4]]), "nontext": torch.tensor([[1.0, 0, 0, 1]])}
    o = dataclasses.replace(observe([[[1.0] * 4]]), state=state)
    assert Textprior().score(o).tolist() == [[5, 8, 6, 4]]
    assert keep(Textprior().score(o)[0], 2).tolist() == [1, 2]
    assert keep(H2o().score(o)[0], 2).tolist() == [0, 3]


LOG = "0x7f 0x80 0x81 0x82 0x83 0x84 0x85 0x86 0x87 0x88 0x89 0x90 " * 6
TEXT = "The gateway listens on port 8443. " + LOG + "And the archive keeps every letter for seven years, as it must."
SPAN = (TEXT.index(LOG), TEXT.index(LOG) + len(LOG))


def nontext_held(context: object, layer: int = 0) -> Tensor:
    its = context._cache.layers[layer]  # type: ignore[attr-defined]
    return its.state["nontext"].view(2, -1)


@pytest.mark.parametrize("order", ["stream(chunk=64)", "layerwise(chunk=64)"])
def test_text_stays_before_what_is_marked_as_no_text(order: str):
    model, _ = pair("llama")
    whole = model.read(Document(text=TEXT, nontext=[SPAN]), f"lookm:4000 | {order}")
    marked = int(nontext_held(whole)[0].sum())
    text = whole.seen - marked
    assert marked > 60 < text
    context = model.read(Document(text=TEXT, nontext=[SPAN]), f"lookm:{text + 10} | {order}")
    assert nontext_held(context).sum(1).tolist() == [10, 10]  # of what is not text, only what was room for
    plain = model.read(TEXT, f"lookm:{text + 10} | {order}")
    lost = {t for t in range(plain.seen) if t not in set(plain.inspect()[0].positions[0].tolist())}
    at = [s for s in (plain.locate(t) for t in lost) if s is not None]
    assert any(s.end <= SPAN[0] or s.start >= SPAN[1] for s in at), "unmarked, text goes like anything else"


def test_marks_last_for_an_append():
    model, _ = pair("llama")
    context = model.read(Document(text=TEXT, nontext=[SPAN]), "lookm:4000")
    before = int(nontext_held(context)[0].sum())
    assert int(nontext_held(context.append("No marks here."))[0].sum()) == before
    assert int(nontext_held(context.append(Document(text=TEXT, nontext=[SPAN])))[0].sum()) > before


@pytest.mark.parametrize("span", [(0, 0), (5, 3), (-1, 4), (0, 10_000), (0.5, 3), 7, "ab", (1, 2, 3)])
def test_marks_that_are_no_spans_of_the_text_are_refused(span: object):
    with pytest.raises(DocumentError, match=r"is no span of its \d+ characters; give \(start, end\)"):
        Document(text="short", nontext=[span])  # type: ignore[list-item]


@pytest.mark.parametrize("text", ["ems:40(candidates=0.0)", "ems:40(threshold=2.0)", "lookm:40(merge=best)"])
def test_parameters_that_make_no_sense_are_refused(text: str):
    with pytest.raises(PlanError):
        Plan.parse(text)


def test_a_folder_brings_its_scorer_and_keeps_the_budget():
    plan = Plan.parse("ems:10%")
    assert [m.name for m in plan.methods] == ["globallocal", "ems"] and plan.budget == Budget.parse("10%")
    assert Plan.parse("lookm:10%").get("score").name == "textprior"  # type: ignore[union-attr]
