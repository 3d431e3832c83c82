"""Searching rope factors (LongRoPE, Ding et al. 2024, section 3): by how much each rotary pair should slow down.

An individual is a factor per pair, never falling from one pair to the next slower one, and how many of the first tokens
keep the angles of training. It is as good as the perplexity of the later half of the user's text under it. The first
ones are linear interpolation, NTK-aware scaling and YaRN for the length that is wanted, and mutations of these; the
best half of each generation are parents, and half as many children come of mutating one, as many of crossing two.

Every judgement is written to a journal beside the output as it is made. The search draws its numbers from the seed and
the generation alone, so a search that was interrupted comes by the same individuals again, and finds them judged.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from farspan.errors import CapacityError, DocumentError, OptionError, PlanDoesNotApply
from farspan.methods.positions.base import Rope
from farspan.methods.positions.linear import Linear
from farspan.methods.positions.ntk import Ntk
from farspan.methods.positions.yarn import Yarn
from farspan.ropes import RopeFactors
from farspan.runtime.likelihood import Fed, score
from farspan.runtime.positions import Frequencies, Placement
from farspan.text import tokenize

if TYPE_CHECKING:
    from farspan.model import Model

POPULATION, GENERATIONS = 16, 8
UNSCALED = (0, 1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 64, 128, 256)  # the paper's choices of untouched first tokens
STEP, SLACK = 0.01, 1.25  # factors are multiples of the one, up to the extension times the other
CHANCE = 0.3  # that a mutation changes a factor
TRIES = 20  # before a child that was seen already is taken as it is


class Individual(NamedTuple):
    """Factors, fastest pair first, and how many of the first tokens they are not for."""

    factors: tuple[float, ...]
    unscaled: int

    @property
    def key(self) -> str:
        """As the journal knows it."""
        return json.dumps([self.factors, self.unscaled])


class Progress(NamedTuple):
    """Where a search stands: judgements made of those there will be at most, and the best perplexity so far."""

    done: int
    total: int
    best: float


Hook = Callable[[Progress], None]


@dataclass
class Journal:
    """Losses by individual, each a line of a file as soon as it is known; none without a file."""

    path: Path | None
    settings: Mapping[str, Any]
    losses: dict[str, float] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path | None, settings: Mapping[str, Any]) -> Journal:
        """With what an interrupted search of the same settings has written; one of other settings begins anew."""
        journal = cls(path, settings)
        if path is None:
            return journal
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        if lines and _json(lines[0]) == dict(settings):
            known = (_json(line) for line in lines[1:])
            journal.losses = {each["of"]: each["loss"] for each in known if each}  # a line cut short is judged again
        else:
            path.write_text(json.dumps(dict(settings)) + "\n", encoding="utf-8")
        return journal

    def note(self, individual: Individual, loss: float) -> None:
        """Remember a judgement, on disk before anything else happens."""
        self.losses[individual.key] = loss
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps({"of": individual.key, "loss": loss}) + "\n")
                file.flush()
                os.fsync(file.fileno())


def search_positions(
    model: Model,
    text: str,
    length: int,
    *,
    population: int = POPULATION,
    generations: int = GENERATIONS,
    seed: int = 0,
    journal: str | os.PathLike[str] | None = None,
    progress: Hook | None = None,
) -> RopeFactors:
    """Search rope factors for texts of `length` tokens, judged by the first `length` tokens of `text` -> an artefact.

    `journal` is a file that lets an interrupted search go on; `progress` is called after every judgement. Raises
    OptionError, CapacityError (a length that the model reads as it is), DocumentError (a text that is too short) or
    PlanDoesNotApply (a model that does not rotate).
    """
    ids = _checked(model, text, length, population, generations)
    rope, trained = _rope(model), model.trained_length or 0
    tokens = hashlib.sha256(ids.to(torch.int32).numpy().tobytes()).hexdigest()[:16]
    settings = {"model": model.fingerprint["whole"], "tokens": tokens, "length": length}
    judged = Journal.open(None if journal is None else Path(journal), settings)
    total = population + (population - _parents(population)) * generations

    def judge(individual: Individual) -> float:
        if individual.key not in judged.losses:
            judged.note(individual, _loss(model, individual, ids))
        if progress is not None:
            done = min(total, len(judged.losses))
            progress(Progress(done, total, math.exp(min(judged.losses.values()))))
        return judged.losses[individual.key]

    best, loss = evolve(judge, first(rope, trained, length), length / trained, population, generations, seed)
    start = judged.losses[first(rope, trained, length)[2].key]
    made = {
        "population": population, "generations": generations, "seed": seed, "judged": len(judged.losses),
        "perplexity": math.exp(loss), "yarn_perplexity": math.exp(start), "scored_tokens": length - length // 2,
    }  # fmt: skip
    return RopeFactors(
        model=model.path,
        fingerprint=dict(model.fingerprint),
        trained=trained,
        length=length,
        factors=best.factors,
        unscaled=best.unscaled,
        made=made,
    )


def first(rope: Rope, trained: int, length: int) -> list[Individual]:
    """Linear interpolation, NTK-aware scaling and YaRN as factors: what the search must not lose to."""
    factor = length / trained
    made = (method.stretch(rope, trained, factor).inverse for method in (Linear(), Ntk(), Yarn()))
    slower = ((rope.inverse.double() / inverse.double()).tolist() for inverse in made)
    return [Individual(_rising(each), 0) for each in slower]


def evolve(
    judge: Callable[[Individual], float],
    start: list[Individual],
    factor: float,
    population: int,
    generations: int,
    seed: int,
) -> tuple[Individual, float]:
    """-> the best individual and its loss. What is drawn depends on the seed, the generation and the judgements."""
    random = Random(f"{seed}/0")
    living = list(start[:population])
    while len(living) < population:
        living.append(_new(living, lambda: mutated(random.choice(start), factor, random)))
    for generation in range(1, generations + 1):
        random = Random(f"{seed}/{generation}")
        parents = sorted(living, key=judge)[: _parents(population)]
        living = list(parents)
        while len(living) < population:
            crossing = (len(living) - len(parents)) % 2 == 1
            living.append(_new(living, lambda p=parents, c=crossing, r=random: _child(p, c, factor, r)))
    best = min(living, key=judge)
    return best, judge(best)


def mutated(parent: Individual, factor: float, random: Random) -> Individual:
    """Some factors drawn anew between their neighbours, and now and then another number of unscaled tokens."""
    factors = list(parent.factors)
    for i in range(len(factors)):
        if random.random() < CHANCE:
            low = factors[i - 1] if i else 1.0
            high = factors[i + 1] if i + 1 < len(factors) else max(low, factor * SLACK)
            factors[i] = _rounded(random.uniform(low, high))
    unscaled = random.choice(UNSCALED) if random.random() < CHANCE else parent.unscaled
    return Individual(_rising(factors), unscaled)


def crossed(one: Individual, two: Individual, random: Random) -> Individual:
    """Each factor from one of two parents, raised where it would fall below the one before."""
    factors = [random.choice(pair) for pair in zip(one.factors, two.factors, strict=True)]
    return Individual(_rising(factors), random.choice((one.unscaled, two.unscaled)))


def _parents(population: int) -> int:
    """The best half."""
    return max(2, population // 2)


def _child(parents: list[Individual], crossing: bool, factor: float, random: Random) -> Individual:
    if not crossing:
        return mutated(random.choice(parents), factor, random)
    one, two = random.sample(parents, 2)
    return crossed(one, two, random)


def _new(living: list[Individual], make: Callable[[], Individual]) -> Individual:
    """One that does not live yet, unless none comes."""
    for _ in range(TRIES):
        if (made := make()) not in living:
            return made
    return make()


def _rising(factors: list[float]) -> tuple[float, ...]:
    """Multiples of the step from 1 on, none below the one before."""
    rising: list[float] = []
    for each in factors:
        rising.append(max(_rounded(each), rising[-1] if rising else 1.0))
    return tuple(rising)


def _rounded(factor: float) -> float:
    return round(round(factor / STEP) * STEP, 2)


def _loss(model: Model, individual: Individual, ids: Tensor) -> float:
    """Mean negative log-likelihood of the later half of ids [N], all of them fed."""
    rope = _rope(model)
    inverse = (rope.inverse.double() / torch.tensor(individual.factors, dtype=torch.float64)).float()
    placement = Placement(
        method="longrope",
        factor=ids.numel() / (model.trained_length or 1),
        ropes={name: Frequencies(tuple(inverse.tolist()), each.scale) for name, each in _ropes(model).items()},
        unscaled=individual.unscaled,
    )
    body = model.runtime(model._prepared.places.at(placement, ids.numel()))
    fed = Fed(model.layout.empty(), ids, None, ids.numel() - ids.numel() // 2)
    return -float(score(body, [fed])[0][:, 0].double().mean())


def _ropes(model: Model) -> dict[str, Rope]:
    return model._prepared.places.ropes(model.trained_length or 1, model.layout)


def _rope(model: Model) -> Rope:
    return next(iter(_ropes(model).values()))


def _checked(model: Model, text: str, length: int, population: int, generations: int) -> Tensor:
    """-> the ids [length] to judge by; raises for what cannot be searched."""
    for name, value, least in (("population", population, 4), ("generations", generations, 1)):
        if value < least:
            raise OptionError(f"{name}={value} is too small; give {least} or more")
    model._prepared.places.check(Linear(), model.layout)
    if len(_ropes(model)) > 1:
        raise PlanDoesNotApply("this model's full-attention layers turn at several frequencies, searched is one set")
    trained = model.trained_length or 0
    if length <= trained:
        raise CapacityError(f"length={length}: the model reads {trained} tokens as it is; give more than that")
    prefix = model.prompts.prefix()
    ids = torch.cat([prefix, torch.from_numpy(tokenize(text, model.tokenizer).ids).to(prefix.dtype)])
    if ids.numel() < length:
        raise DocumentError(f"the text has {ids.numel()} tokens, and {length} are to be judged by; give a longer one")
    return ids[:length]


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
