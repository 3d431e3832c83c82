"""The search for rope factors: its operators, its result, and going on after an interruption."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from farspan import ropes, searching
from farspan.errors import CapacityError, DocumentError, OptionError, PlanDoesNotApply, PlanError, ProfileError
from farspan.plan import Plan
from farspan.ropes import RopeFactors
from farspan.searching import Individual, crossed, evolve, first, mutated, search_positions
from farspan.testing.made_up import made_up_factors
from tests.methods.positions.test_frequencies import rope
from tests.methods.positions.twins import TRAINED, loaded, short
from tests.oracle.recording import TOLERANCE, agreement, recording
from tests.oracle.situations import LONG, QUESTIONS, SHORT, ask

TEXT = LONG * 6
LENGTH = 300
SMALL: dict[str, Any] = {"population": 4, "generations": 2}


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ropes, "_known", {})


# -- operators -----------------------------------------------------------------------------------------------------


def valid(individual: Individual, most: float) -> bool:
    pairs = itertools.pairwise(individual.factors)
    return all(a <= b for a, b in pairs) and individual.factors[0] >= 1 and individual.factors[-1] <= most + 1e-9


@given(seed=st.integers(0, 999), pairs=st.integers(1, 32), factor=st.floats(1.5, 64))
def test_children_never_slow_a_fast_pair_more_than_a_slow_one(seed: int, pairs: int, factor: float) -> None:
    random = Random(seed)
    living = first(rope(pairs), 100, round(100 * factor))
    most = max(factor * searching.SLACK, max(each.factors[-1] for each in living)) + searching.STEP
    for _ in range(8):
        living.append(mutated(random.choice(living), factor, random))
        living.append(crossed(*random.sample(living, 2), random))
    assert all(valid(each, most) for each in living)
    assert all(each.unscaled in searching.UNSCALED for each in living)


def test_it_begins_with_interpolation_ntk_and_yarn() -> None:
    linear, ntk, yarn = first(rope(4), 100, 400)
    assert linear.factors == (4, 4, 4, 4) and ntk.factors == pytest.approx([1, 1.59, 2.52, 4], abs=0.006)
    assert yarn.factors[0] == 1 and yarn.factors[-1] == 4


def test_evolution_finds_what_a_judge_wants() -> None:
    """A judge that knows the answer: factors near 1, 2, 3, 4 and 16 unscaled tokens."""
    wanted = (1.0, 2.0, 3.0, 4.0)

    def judge(individual: Individual) -> float:
        return math.dist(individual.factors, wanted) + abs(math.log2((individual.unscaled + 1) / 17)) / 5

    start = first(rope(4), 100, 400)
    best, loss = evolve(judge, start, 4.0, population=16, generations=25, seed=1)
    assert loss == judge(best) < 0.5 * min(map(judge, start))
    again = evolve(judge, start, 4.0, population=16, generations=25, seed=1)
    assert again == (best, loss), "the same search finds the same"
    _, worse = evolve(judge, start, 4.0, population=16, generations=1, seed=1)
    assert loss < worse, "generations must help"


# -- on a model ----------------------------------------------------------------------------------------------------


def test_the_best_is_no_worse_than_what_it_began_with() -> None:
    model = loaded()
    made = search_positions(model, TEXT, LENGTH, **SMALL)
    ids = searching._checked(model, TEXT, LENGTH, 4, 1)
    losses = [searching._loss(model, each, ids) for each in first(searching._rope(model), TRAINED, LENGTH)]
    assert math.log(made.made["perplexity"]) <= min(losses) + 1e-6
    assert math.log(made.made["yarn_perplexity"]) == pytest.approx(losses[2])
    assert (made.trained, made.length, len(made.factors)) == (TRAINED, LENGTH, 8)
    assert made == search_positions(loaded(), TEXT, LENGTH, **SMALL), "the same text and seed find the same"


def test_a_judgement_is_the_likelihood_that_transformers_finds() -> None:
    model, individual = loaded(), Individual((1.0, 1.1, 1.3, 1.5, 2.0, 2.2, 2.3, 2.34), 0)
    ids = searching._checked(model, TEXT, LENGTH, 4, 1)
    twin = short()
    rotary = next(module for module in twin.modules() if type(module).__name__.endswith("RotaryEmbedding"))
    rotary.inv_freq = rotary.inv_freq / torch.tensor(individual.factors)
    with torch.inference_mode():
        logits = twin(input_ids=ids[None].long()).logits[0].float()
    later = range(LENGTH // 2, LENGTH)
    expected = -sum(float(logits[i - 1].log_softmax(-1)[ids[i]]) for i in later) / len(later)
    assert searching._loss(model, individual, ids) == pytest.approx(expected, rel=1e-5)


class Interrupted(Exception):
    """Stands for a power cut."""


def test_an_interrupted_search_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, journal, judged = loaded(), tmp_path / "model.rope.part", searching._loss
    whole = search_positions(model, TEXT, LENGTH, **SMALL)
    calls = []

    def failing(*args: Any) -> float:
        calls.append(args[1].key)
        if len(calls) == 4:
            raise Interrupted
        return judged(*args)

    monkeypatch.setattr(searching, "_loss", failing)
    with pytest.raises(Interrupted):
        search_positions(model, TEXT, LENGTH, **SMALL, journal=journal)
    journal.write_text(journal.read_text() + '{"of": "[[1.0', encoding="utf-8")  # cut in the middle of a line
    resumed = search_positions(model, TEXT, LENGTH, **SMALL, journal=journal)
    assert resumed == whole
    assert len(calls) - 1 == whole.made["judged"] and len(set(calls)) == len(calls) - 1, "nothing is judged twice"
    assert search_positions(model, TEXT, LENGTH, **SMALL, journal=journal) == whole and len(calls) - 1 == len(
        set(calls)
    )
    other = search_positions(model, TEXT, LENGTH + 10, **SMALL, journal=journal)
    assert other.length == LENGTH + 10 and json.loads(journal.read_text().splitlines()[0])["length"] == LENGTH + 10


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"length": TRAINED}, CapacityError, "length=128: the model reads 128 tokens as it is; give more than that"),
        ({"length": 100_000}, DocumentError, r"the text has \d+ tokens, and 100000 are to be judged by"),
        ({"population": 3}, OptionError, "population=3 is too small; give 4 or more"),
        ({"generations": 0}, OptionError, "generations=0 is too small"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(changed: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        search_positions(loaded(), TEXT, **{"length": LENGTH, **SMALL, **changed})


# -- the artefact, and reading with it -----------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return replace(made_up_factors(8, loaded().fingerprint), trained=TRAINED).save(tmp_path / "model.rope")


def test_what_is_saved_is_what_is_loaded(saved: Path) -> None:
    found = ropes.load(str(saved))
    assert found.factors == made_up_factors(8).factors and found.unscaled == 5
    plan = Plan.parse(f"longrope(factors='{saved}')")
    assert f"{saved}#{found.digest}" in str(plan)
    assert Plan.parse(str(plan)) == plan == Plan.from_json(plan.to_json())
    elsewhere = saved.rename(saved.with_name("moved.rope"))
    assert Plan.parse(f"longrope(factors='{elsewhere}')").hash == plan.hash


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text.replace('"unscaled": 5', '"unscaled": 6'), "is damaged: its checksum"),
        (lambda text: text[:-30], "or a damaged one"),
        (lambda text: text.replace("rope factors", "head profile"), "is no file of rope factors"),
        (lambda text: text.replace('"format": 1', '"format": 2'), "update farspan"),
    ],
)
def test_damage_is_said_when_the_plan_is_built(saved: Path, damage: Any, message: str) -> None:
    saved.write_text(damage(saved.read_text()))
    with pytest.raises(ProfileError, match=message) as caught:
        Plan.parse(f"longrope(factors='{saved}')")
    assert (
        "longrope: " in str(caught.value) and "farspan search-positions" in str(caught.value)
    ) or "update" in message


def test_factors_that_are_none_are_refused() -> None:
    good = asdict(made_up_factors(4))
    for changed, message in (
        ({"factors": (1.0, 2.0, 1.5)}, "never fall"),
        ({"factors": (0.5, 1.0)}, "from 1 on"),
        ({"factors": ()}, "from 1 on"),
        ({"unscaled": -1}, "the first -1 unscaled"),
        ({"length": 100}, "for 100 tokens of a model trained on 128"),
    ):
        with pytest.raises(ProfileError, match=message):
            RopeFactors(**{**good, **changed})


def test_another_models_factors_do_not_apply(tmp_path: Path) -> None:
    foreign = made_up_factors(8, {"whole": "another"}).save(tmp_path / "other.rope")
    with pytest.raises(PlanDoesNotApply, match=r"searched with 'made up', and .* is another model"):
        loaded().read(LONG, f"longrope(factors='{foreign}')")
    small = replace(made_up_factors(6, loaded().fingerprint)).save(tmp_path / "small.rope")
    with pytest.raises(PlanDoesNotApply, match="it has factors for 6 pairs, and this model rotates 8"):
        loaded().read(LONG, f"longrope(factors='{small}')")
    with pytest.raises(PlanError, match=r"'longrope' needs factors: write longrope\(factors=...\)"):
        Plan.parse("longrope")


def by_hand(found: RopeFactors) -> Any:
    """The paper's equation 1 as a rotary module: position n turns pair i by n θ_i / λ_i, or by n θ_i where n < n̂."""
    twin = short()
    rotary = next(module for module in twin.modules() if type(module).__name__.endswith("RotaryEmbedding"))

    def forward(x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        slower = torch.where(position_ids[..., None] < found.unscaled, 1.0, torch.tensor(found.factors))
        angles = position_ids[..., None].float() * (rotary.inv_freq / slower)
        both = torch.cat([angles, angles], -1)
        return both.cos(), both.sin()

    rotary.forward = forward
    return twin


@pytest.mark.parametrize("rest", ["", " | snapkv:60(window=8)", " | expected:60(window=16)", " | shadowkv(rank=8)"])
def test_reads_are_those_of_the_papers_equation(saved: Path, rest: str) -> None:
    with recording() as record:
        context = loaded().read_batch([LONG], f"longrope(factors='{saved}'){rest}", length=500, trace=True)[0]
        answered = ask(context, QUESTIONS[0], "single")[0].context
    assert answered.seen > TRAINED
    assert agreement(by_hand(ropes.load(str(saved))), record, context, answered) <= TOLERANCE


def test_keys_of_unscaled_tokens_are_moved_by_their_own_angles(saved: Path) -> None:
    model = loaded()
    context = model.read(LONG, f"longrope(factors='{saved}')", length=500)
    runtime, at = model.runtime(context.positions), torch.tensor([0, 2, 4, 5, 6, 90])
    keys = torch.randn(2, 6, 16)
    placed = runtime.place(keys, torch.zeros(6, dtype=torch.int64), at, 0)
    cos, sin = context.positions.angles(at)
    half = torch.cat([-keys[..., 8:], keys[..., :8]], -1)
    assert torch.allclose(placed, keys * cos + half * sin, atol=1e-5)
    assert torch.allclose(runtime.place(placed, at, torch.zeros(6, dtype=torch.int64), 0), keys, atol=1e-5)
    by_differences = runtime.rotate(keys, at, 0)
    assert torch.allclose(by_differences[:, 3:], placed[:, 3:], atol=1e-5)
    assert not torch.allclose(by_differences[:, 1:3], placed[:, 1:3], atol=1e-2)


def test_texts_beyond_the_searched_length_slow_down_further(saved: Path) -> None:
    def inverse(length: int) -> torch.Tensor:
        placement = loaded().read(SHORT, f"longrope(factors='{saved}')", length=length).positions.placement
        assert placement is not None
        return torch.tensor(placement.ropes[""].inverse)

    assert torch.equal(inverse(300), inverse(512)), "up to the searched length, as searched"
    assert torch.allclose(inverse(1024) * 2, inverse(512))
    assert loaded().read(SHORT, f"longrope(factors='{saved}')", length=100).positions.placement.unscaled == 0


def test_a_context_opens_and_answers_without_the_file(saved: Path, tmp_path: Path) -> None:
    context = loaded().read(LONG, f"longrope(factors='{saved}')")
    asked = context.ask(QUESTIONS[0], max_new_tokens=8)
    context.save(tmp_path / "long.ctx")
    saved.unlink()
    ropes._known.clear()
    opened = loaded().open(tmp_path / "long.ctx")
    assert opened.ask(QUESTIONS[0], max_new_tokens=8).token_ids == asked.token_ids


def test_contexts_whose_first_tokens_turn_otherwise_are_not_composed(saved: Path) -> None:
    model = loaded()
    contexts = [model.read(text, f"longrope(factors='{saved}')", length=500) for text in (LONG, SHORT)]
    with pytest.raises(PlanDoesNotApply, match="longrope turns the first 5 tokens by other angles than all later ones"):
        model.compose(contexts)
