"""Everything composes: every way to choose entries with every way to hold them, in each use of a context."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessorList, PreTrainedModel, SuppressTokensLogitsProcessor

from farspan.cache import CachegenBlock, DenseBlock
from farspan.cache.cachegen import bin_of
from farspan.context import Answer, Context
from farspan.errors import BudgetError, OptionError, PlanDoesNotApply, PlanError
from farspan.methods.retain.base import Scorer
from farspan.model import Model
from farspan.plan import RETAIN as SLOTS
from farspan.plan import Plan
from farspan.registry import names
from farspan.testing import allocated_bytes
from farspan.testing.made_up import full_heads, made_up_profile
from farspan.text import Document
from tests.oracle.recording import TOLERANCE, Recording, agreement, recording
from tests.oracle.situations import LONG, MIDDLE, OTHER, QUESTIONS, SHORT, pair

RETAIN = {
    "expected": "expected:{budget}(window=16)",
    "fastgen": "fastgen:{budget}(threshold=0.6, recent=8)",
    "globallocal": "globallocal:{budget}(window=8)",
    "h2o": "h2o:{budget}(recent=8, decode=50)",
    "keydiff": "keydiff:{budget}",
    "keynorm": "keynorm:{budget}",
    "random": "random:{budget}",
    "sirllm": "sirllm:{budget}(decay=0.5)",
    "snapkv": "snapkv:{budget}(window=8)",
    "spatten": "spatten:{budget}",
    "spatten_heads": "spatten_heads:{budget}",
    "textprior": "textprior:{budget}(recent=8)",
    "tova": "tova:{budget}",
    "window": "window:{budget}",
    "adakv": "adakv:{budget} | snapkv(window=8)",
    "headkv": "headkv:{budget}(profile={profile}) | snapkv(window=8)",
    "pyramid": "pyramid:{budget} | snapkv(window=8)",
    "taskkv": "taskkv:{budget} | snapkv(window=8)",
    "tca": "tca:{budget}(profile={profile})",
    "shallow": "shallow:{budget} | snapkv(window=8)",
    "uniform": "uniform:{budget} | tova(decode=50)",
    "ems": "ems:{budget} | globallocal(window=8)",
    "lookm": "lookm:{budget}",
}
STORES = {
    "plain": "",
    "int8": " | int8",
    "int4": " | int4(group=16)",
    "int2": " | int2(residual=8)",
    "fp8": " | fp8",
    "zipcache": " | zipcache(salient=0.3)",
    "shadowkv": " | shadowkv(rank=8, chunk=4, outliers=1)",
    "quantised": " | quantised",
    "offload": " | offload",
    "int4 elsewhere": " | int4 | offload",
}
ALONE = ("pod",)  # refuses whatever chooses entries; tests/methods/store/test_pod.py has its uses
PAIRS = [("llama", retain, store) for retain in RETAIN for store in STORES]
OTHERS = [
    ("gemma3", "adakv", "zipcache"),
    ("gemma3", "ems", "int4 elsewhere"),
    ("gemma3", "sirllm", "int2"),
    ("gemma3", "textprior", "quantised"),
    ("qwen3", "headkv", "int4"),
    ("phi3", "tca", "shadowkv"),
    ("gpt2", "expected", "shadowkv"),
    ("gpt2", "h2o", "int8"),
    ("gpt2", "lookm", "fp8"),
]

MARKED = Document(text=LONG, nontext=[(LONG.index("def read"), LONG.index("Ein"))])
TURNS = (QUESTIONS[0], MIDDLE + QUESTIONS[1], QUESTIONS[2])  # the second is long enough for tails to seal
JUDGED = " The archive keeps the letters of the gateway."
GOING_ON: dict[str, Any] = {
    "max_new_tokens": 2,
    "logits_processor": LogitsProcessorList([SuppressTokensLogitsProcessor([2])]),
}


@dataclass(frozen=True)
class Made:
    """Two documents read side by side, packed; what the first answers and finds likely; what passed meanwhile."""

    plan: str
    model: Model
    twin: PreTrainedModel
    row: Context
    other: Context
    answer: Answer
    judged: tuple[float, ...]
    record: Recording


def profile(kind: str, folder: Path) -> Path:
    path = folder / f"{kind}.heads"
    return path if path.exists() else made_up_profile(full_heads(kind), pair(kind)[0].fingerprint).save(path)


def plan_of(kind: str, retain: str, store: str, folder: Path) -> str:
    """The pair as a plan: 48 entries a head, or for what chooses by bytes, fewer than all tokens take at 4 bits."""
    budget = "14KB" if store == "quantised" else "48"
    chosen = RETAIN[retain].format(budget=budget, profile=repr(str(profile(kind, folder))))
    return f"{chosen}{STORES[store]} | stream(chunk=64)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("profiles")


@pytest.fixture(params=[*PAIRS, *OTHERS], ids="-".join, scope="module")
def made(request: pytest.FixtureRequest, folder: Path) -> Made:
    """One read that the four uses of a pair share."""
    (model, twin), plan = pair(request.param[0]), plan_of(*request.param, folder)
    with recording() as record:
        row, other = model.read_batch([MARKED, SHORT], plan, trace=True)
        answer = row.ask(TURNS[0], **GOING_ON)
    return Made(plan, model, twin, row, other, answer, row.score(JUDGED).logprobs, record)


def entries(context: Context) -> list[Tensor]:
    """Copies of all that is held: keys, values and positions, those that are not sealed, and per-entry state."""
    held: list[Tensor] = []
    for layer in context._cache.layers:
        held += [tensor.clone() for extent in layer.extents for tensor in extent.entries()]
        held += [layer.tail.keys.clone(), layer.tail.values.clone()] if len(layer.tail) else []
        held += [layer.state[name].clone() for name in sorted(layer.state)]
    return held


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def places(context: Context) -> list[list[list[int]]]:
    """Which tokens every head of every layer holds."""
    return [[head.tolist() for head in layer.positions] for layer in context.inspect()]


def own_bytes(context: Context) -> int:
    """Bytes that forks do not share: tails and per-entry state."""
    layers = context._cache.layers
    return sum(layer.tail.nbytes + sum(t.untyped_storage().nbytes() for t in layer.state.values()) for layer in layers)


def test_rows_of_a_batch_equal_their_single_runs(made: Made) -> None:
    alone = made.model.read(MARKED, made.plan)
    assert places(made.row) == places(alone) and alone.held < alone.seen
    assert made.row.held_bytes == alone.held_bytes and made.row.elsewhere_bytes == alone.elsewhere_bytes
    for mine, its in zip(entries(made.row), entries(alone), strict=True):
        torch.testing.assert_close(mine, its, atol=1e-3, rtol=1e-3)
    together = made.model.ask_batch([made.other, made.row], ["And why?", TURNS[0]], **GOING_ON)
    assert together[0].token_ids == made.other.ask("And why?", **GOING_ON).token_ids
    assert together[1].token_ids == made.answer.token_ids
    _, judged = made.row.score([OTHER, JUDGED])
    torch.testing.assert_close(judged.logprobs, made.judged, atol=1e-3, rtol=1e-3)


def test_turns_are_those_of_forks_and_of_the_replayed_decisions(made: Made) -> None:
    turns = [made.row, made.answer.context]
    with recording() as record:
        for question in TURNS[1:]:
            turns.append(turns[-1].ask(question, **GOING_ON).context)
    fork = made.row
    for turn, question in zip(turns[1:], TURNS, strict=True):
        fork = fork.fork().ask(question, **GOING_ON).context
        assert torch.equal(fork.token_ids, turn.token_ids)
        assert same(entries(fork), entries(turn)) and places(fork) == places(turn)
        assert turn.held_bytes == fork.held_bytes == allocated_bytes(turn._cache)
    assert len(turns[-1]._cache.layers[-1].tail) < turns[-1].seen - made.row.seen, "a tail has sealed"
    assert agreement(made.twin, Recording(made.record.passed + record.passed), *turns) <= TOLERANCE


def test_a_fork_equals_its_parent_shares_its_storage_and_leaves_it_untouched(made: Made) -> None:
    held, size = entries(made.row), made.row.held_bytes
    fork = made.row.fork()
    assert allocated_bytes(made.row._cache, fork._cache) == size + own_bytes(fork)
    assert fork.ask(TURNS[0], **GOING_ON).token_ids == made.answer.token_ids
    assert fork.score(JUDGED).logprobs == made.judged
    longer = fork.append(OTHER)
    assert longer.held_bytes == allocated_bytes(longer._cache) and places(longer) != places(made.row)
    newest = (made.row.seen - 9, made.row.seen)
    if "zipcache" in made.plan:
        with pytest.raises(PlanDoesNotApply, match=r"zipcache packs by queries, and none are at hand .* another"):
            fork.drop(newest)
    else:
        kept = [layer for layer in fork.drop(newest).inspect() if layer.window is None]
        assert all(int(head.max()) < newest[0] for layer in kept for head in layer.positions if head.numel())
    assert same(entries(made.row), held) and made.row.held_bytes == size == allocated_bytes(made.row._cache)


def test_what_is_opened_holds_the_same_bytes_and_answers_to_the_bit(made: Made, tmp_path: Path) -> None:
    opened = made.model.open(made.row.save(tmp_path / "a.ctx"))
    assert opened.plan == made.row.plan and opened.settled_plan == made.row.settled_plan
    assert opened.score(JUDGED).logprobs == made.judged
    assert opened.held_bytes == made.row.held_bytes == allocated_bytes(opened._cache)
    assert same(entries(opened), entries(made.row)) and places(opened) == places(made.row)
    assert same(entries(opened.ask(TURNS[0], **GOING_ON).context), entries(made.answer.context))


def test_coded_it_holds_what_was_quantised_or_is_refused(made: Made, tmp_path: Path) -> None:
    layers = made.row._cache.layers
    if not any(isinstance(extent.block, DenseBlock) for layer in layers for extent in layer.extents):
        with pytest.raises(OptionError, match="holds none that have sealed: save it without a codec"):
            made.row.save(tmp_path / "a.ctx", codec="cachegen")
        return
    opened = made.model.open(made.row.save(tmp_path / "a.ctx", codec="cachegen", level=0))
    for mine, its in zip(layers, opened._cache.layers, strict=True):
        for was, now in zip(mine.extents, its.extents, strict=True):
            block = was.block
            if isinstance(block, DenseBlock):
                block = CachegenBlock.encode(block, was.counts, bin_of(mine.index, len(layers), 0)).decode()
            assert same(list(block.unpack(0, block.entries)), list(now.entries()[:2]))
    assert places(opened) == places(made.row)
    assert opened.held_bytes == allocated_bytes(opened._cache) == made.row.held_bytes


# -- what does not go together -----------------------------------------------------------------------------------------


def test_no_method_of_either_family_is_left_out(folder: Path) -> None:
    plans = {key: Plan.parse(plan_of("llama", *key, folder)) for _, *pairs in PAIRS for key in [tuple(pairs)]}
    chosen = {method.name for plan in plans.values() for method in plan.methods if method.slot in SLOTS}
    assert chosen == set(names("retain"))
    held = {method.name for plan in plans.values() for method in plan.methods if method.slot in ("store", "place")}
    assert held == set(names("store")) - set(ALONE)
    assert all(retain in {method.name for method in plan.methods} for (retain, _), plan in plans.items())


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("retain", RETAIN)
def test_layers_that_all_slide_and_a_profile_of_another_model_are_refused(
    retain: str, store: str, folder: Path
) -> None:
    reason = "all 3 layers of this model have a sliding window of their own"
    if "profile" in RETAIN[retain]:
        reason = r"made with 'made up', and .* is another model .*\. Make one with: farspan profile"
    with pytest.raises(PlanDoesNotApply, match=reason):
        pair("mistral")[0].read(MARKED, plan_of("llama", retain, store, folder))


@pytest.mark.parametrize("retain", RETAIN)
@pytest.mark.parametrize("store", ALONE)
def test_a_store_that_goes_with_no_choice_of_entries_says_so(retain: str, store: str, folder: Path) -> None:
    with pytest.raises(PlanError, match=f"'{store}' cannot be combined with '.*': it excludes the slot"):
        Plan.parse(f"{plan_of('llama', retain, 'plain', folder)} | {store}")


@pytest.mark.parametrize("retain", RETAIN)
def test_a_precision_that_a_budget_chooses_needs_one_in_bytes(retain: str, folder: Path) -> None:
    plan = plan_of("llama", retain, "plain", folder)
    with pytest.raises(PlanError, match=r"'quantised' chooses its precision by a budget in bytes.*int8, int4, int2"):
        pair("llama")[0].read(MARKED, f"{plan} | quantised")


@pytest.mark.parametrize("store", ["plain", "int2", "quantised"])
@pytest.mark.parametrize("retain", RETAIN)
def test_a_budget_below_the_floor_says_what_would_do(retain: str, store: str, folder: Path) -> None:
    model, _ = pair("llama")
    scorer = Plan.parse(plan_of("llama", retain, store, folder)).get("score")
    assert isinstance(scorer, Scorer)
    budget = "100B" if store == "quantised" else str(scorer.floor - 1)
    chosen = RETAIN[retain].format(budget=budget, profile=repr(str(profile("llama", folder))))
    with pytest.raises(BudgetError, match="at least"):
        model.read(MARKED, f"{chosen}{STORES[store]}")
