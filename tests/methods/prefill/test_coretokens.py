"""TCA-Attention's selection while reading: calibrated numbers of the least redundant keys, chosen once."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from farspan.cache import LayerCache
from farspan.cache.sequence import Patterned
from farspan.errors import PlanDoesNotApply, PlanError
from farspan.heads import HeadProfile
from farspan.methods.prefill.base import Chunk
from farspan.methods.prefill.coretokens import Coretokens
from farspan.methods.retain.tca import Tca
from farspan.plan import Plan
from farspan.signals.keys import likeness
from farspan.testing.made_up import made_up_profile
from tests.oracle.recording import TOLERANCE, agreement, recording
from tests.oracle.situations import KINDS, LONG, MIDDLE, ORDERS, ask, pair


def profile(folder: Path, *spread: tuple[float, ...]) -> str:
    """A profile of layers 0, 1, ... whose heads spread so."""
    none = tuple(tuple(0.0 for _ in row) for row in spread)
    scores = {"retrieval": none, "reasoning": none, "spread": spread}
    layers = tuple(range(len(spread)))
    return str(HeadProfile(model="by hand", fingerprint={}, layers=layers, scores=scores).save(folder / "h.heads"))


def chunks(keys: torch.Tensor, *sizes: int) -> list[Chunk]:
    """keys [H, N, D] of one layer as they come in, so many at a time; the method's memory goes from one to the next."""
    made, memory = [], {}
    for start, stop in itertools.pairwise(itertools.accumulate(sizes, initial=0)):
        held = LayerCache(0)
        held.tail.append(keys[:, :stop], keys[:, :stop], 0)
        queries = torch.randn(keys.shape[0], stop - start, keys.shape[2])
        made.append(
            Chunk(layer=0, layers=1, heads=keys.shape[0], start=start, total=keys.shape[1], queries=queries,
                  scaling=1.0, held=held, memory=memory)
        )  # fmt: skip
    return made


def test_a_worked_example_what_is_unlike_the_others_is_seen(tmp_path: Path) -> None:
    """8 keys of two heads, a window of 2 and no sinks, so 6 are chosen from when the second chunk of 4 comes, and 2
    when the first does. Head 0 sees half, head 1 a third: of the first 2 keys 1 and 0, of the next 4 another 2 and 2.

    Keys along (1, 0) are alike, those along (0, 1) stand out. Head 0: of tokens 0, 1 the second is as like the mean as
    the first, and the older one stays; of 2 to 5 token 4 stands out most, then the oldest of those alike. Head 1: 3, 2.
    Next to A-shape, which sees the same tokens whatever their keys.
    """
    one, other = [1.0, 0.0], [0.0, 1.0]
    keys = torch.tensor([[one, other, one, one, other, one, one, one], [one, one, one, other, one, one, other, one]])
    method = Coretokens(profile=profile(tmp_path, (0.5, 0.34)), sinks=0, window=2)
    first, second = (method.pattern(chunk) for chunk in chunks(keys, 4, 4))
    assert [its.columns.tolist() for its in first.heads] == [[0], []]
    assert [its.columns.tolist() for its in second.heads] == [[0, 2, 4], [2, 3]]


def test_a_density_is_shared_out_as_the_cache_s_budget_is(tmp_path: Path) -> None:
    """Spreads 0.5 0.3 | 0.1 0.1, a density of a quarter: 1.0 in all, shared out 5 : 3 : 1 : 1."""
    file = profile(tmp_path, (0.5, 0.3), (0.1, 0.1))
    method = Coretokens(profile=file, density=0.25)
    assert method.shares(method.load()) == [[0.5, 0.3], [0.1, 0.1]]
    assert Coretokens(profile=file, density=0.5).shares(method.load()) == [[1.0, 0.6], [0.2, 0.2]]
    assert Coretokens(profile=file).shares(method.load()) == [[0.5, 0.3], [0.1, 0.1]], (
        "the calibrated shares themselves"
    )
    budgets = Tca(profile=file).shares(250, [2, 2], 0, 1000)
    assert budgets == [400, 100] == [int(1000 * sum(row) / 2) for row in method.shares(method.load())]


def test_what_was_chosen_stays_chosen_and_of_each_run_the_share_is_held(tmp_path: Path) -> None:
    keys = torch.randn(2, 300, 8, generator=torch.Generator().manual_seed(2))
    method = Coretokens(profile=profile(tmp_path, (0.2, 0.05)), sinks=3, window=20)
    seen = [method.pattern(chunk) for chunk in chunks(keys, 70, 110, 1, 119)]
    for head, share in enumerate((0.2, 0.05)):
        columns = [set(pattern.heads[head].columns.tolist()) for pattern in seen]
        assert all(a <= b for a, b in itertools.pairwise(columns))
        assert [len(its) for its in columns] == [int(share * (n - 20 - 3)) for n in (70, 180, 181, 300)]
        assert all(3 <= at < 280 for at in columns[-1])
        run = -likeness(keys[head : head + 1, 50:160])[0]
        mine = {at - 50 for at in columns[1] - columns[0]}
        assert mine == set(run.topk(len(mine)).indices.tolist())


def made(tmp_path: Path, kind: str, **given: float) -> str:
    model, _ = pair(kind)
    heads = {i: layer.heads for i, layer in enumerate(model.layout.layers) if layer.window is None}
    file = made_up_profile(heads, model.fingerprint).save(tmp_path / f"{kind}.heads")
    return str(Plan((Coretokens(profile=str(file), sinks=2, window=9, **given),)))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mistral"])
def test_what_was_seen_is_what_was_noted(kind: str, order: str, tmp_path: Path) -> None:
    model, twin = pair(kind)
    with recording() as record:
        context = model.read_batch([LONG], f"{made(tmp_path, kind, density=0.3)} | {order} | int8", trace=True)[0]
        longer = context.append(MIDDLE[:120], probe="Which port?")
        answered = ask(longer, "Which port?", "single", tokens=2)[0].context
    assert agreement(twin, record, context, longer, answered) <= TOLERANCE
    noted = [event for event in longer._cache.events.log if isinstance(event, Patterned)]
    assert any(sight.columns.numel() for event in noted for sight in event.pattern.heads)


@pytest.mark.parametrize("order", ORDERS)
def test_it_reads_with_the_cache_that_the_same_calibration_keeps(order: str, tmp_path: Path) -> None:
    model, twin = pair("llama")
    plan = made(tmp_path, "llama", density=0.3)
    file = plan.partition("profile=")[2].partition(",")[0].rstrip(")")
    with recording() as record:
        context = model.read_batch([LONG], f"{plan} | tca:30%(profile={file}) | {order}", trace=True)[0]
        answered = ask(context, "Which port?", "single", tokens=2)[0].context
    assert context.held <= 0.3 * context.seen
    assert agreement(twin, record, context, answered) <= TOLERANCE


def test_mistakes_are_said(tmp_path: Path) -> None:
    for wrong, message in (("density=0", "no share of a text"), ("window=0", "leaves a token nothing to see")):
        with pytest.raises(PlanError, match=message):
            Plan.parse(f"coretokens({wrong})")
    with pytest.raises(PlanDoesNotApply, match="is another model"):
        pair("llama")[0].read(LONG, Plan((Coretokens(profile=profile(tmp_path, (0.1,))),)))
    assert "does not fit: it scores the heads" in str(Coretokens(profile=profile(tmp_path, (0.1,))).applies(2, {1: 4}))
