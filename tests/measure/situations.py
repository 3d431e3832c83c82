"""A small task and tiny models for the runner's tests."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Self

import farspan
from farspan.errors import UsageError
from farspan.measure.local import LocalModel
from farspan.measure.outcome import Outcome
from farspan.measure.record import Mode
from farspan.measure.settings import Settings
from farspan.plan import Plan
from farspan.tasks.base import Counter, Kind, Passage, Question, Score, Task, depth_of
from tests.models import tiny, tiny_tokenizer

FILL = "The archive keeps every letter for seven years. "


@dataclass(frozen=True, kw_only=True)
class Letters(Task):
    """Say which number stands in the text."""

    suite: str = "test"
    name: str = "letters"
    minimum_length: int = 100
    questions: int = 2
    kind: Kind = "question"
    prefix: str = ""
    filling: str = FILL
    breaks_at: int | None = None

    @property
    def minimum(self) -> int:  # type: ignore[override]
        return self.minimum_length

    def with_haystack(self, name: str) -> Self:
        return replace(self, filling=name + ". ")

    def generate(self, index: int, *, length: int, counter: Counter, random: Random) -> Passage:
        if length < self.minimum:
            raise UsageError(f"{self.id} needs a length of at least {self.minimum} tokens, and {length} were asked for")
        if index == self.breaks_at:
            raise UsageError("this sample cannot be made")
        number, count = random.randrange(100), 1
        while counter.text(self._text(number, count + 1, index)[0]) + 40 <= length:
            count += 1
        text, gold = self._text(number, count, index)
        return Passage(context=text, questions=tuple(self._question(i, number, gold) for i in range(self.questions)))

    def _text(self, number: int, count: int, index: int) -> tuple[str, tuple[int, int]]:
        before = self.filling * round(count * depth_of(index))
        needle = f"Letter {number} was sent in May. "
        return before + needle + self.filling * (count - round(count * depth_of(index))), (
            len(before),
            len(before) + len(needle.rstrip()),
        )

    def _question(self, place: int, number: int, gold: tuple[int, int]) -> Question:
        words = {"question": f"Which letter was sent ({place})?", "continuation": f" So letter{place}"}
        return Question(
            text=words.get(self.kind, ""),
            references=(str(number),) if self.kind != "likelihood" else (f" Letter {number} was sent.",),
            kind=self.kind,
            prefix=self.prefix,
            max_new_tokens=4 + place,
            gold=(gold,),
            labels={"place": place},
        )

    def score(self, question: Question, reply: str) -> Score:
        right = float(question.references[0] in reply)
        return Score(official=right, strict=float(reply == question.references[0]), parsed=any(map(str.isdigit, reply)))


@functools.cache
def subject(kind: str = "llama") -> LocalModel:
    tokenizer = tiny_tokenizer()
    return LocalModel(farspan.load(tiny(kind, vocab_size=len(tokenizer)), tokenizer=tokenizer))


def settings(**changes: Any) -> Settings:
    given: dict[str, Any] = {
        "plans": (Plan.parse("full"), Plan.parse("window:40 | int8")),
        "tasks": (Letters(),),
        "lengths": (160, 240),
        "samples": 3,
    }
    return Settings(**{**given, **changes})


class Coin:
    """A subject without a model: right with a probability that follows from the sample, and quick."""

    def __init__(self, rate: float = 1.0, error_at: int | None = None) -> None:
        self.rate, self.error_at = rate, error_at
        self.counter = _Words()
        self.asked: list[tuple[str, str, Mode]] = []

    def describe(self) -> dict[str, Any]:
        return {"kind": "coin", "rate": self.rate}

    def environment(self) -> dict[str, Any]:
        return {"device": "none"}

    def notes(self) -> list[str]:
        return []

    def check(self, plans: Sequence[Plan]) -> None:
        pass

    def answer(self, passages: Sequence[Passage], plans: Sequence[Plan], mode: Mode) -> Iterator[list[list[Outcome]]]:
        return ([self.toss(passage, plan, mode) for passage in passages] for plan in plans)

    def toss(self, passage: Passage, plan: Plan, mode: Mode) -> list[Outcome]:
        self.asked.append((passage.id, plan.hash, mode))
        tossed = (Random(f"{passage.id}{i}{plan.hash}{mode}").random() for i in range(len(passage.questions)))
        pairs = zip(passage.questions, tossed, strict=True)
        return [Outcome(reply=q.references[0] if t < self.rate else "none", tokens=10) for q, t in pairs]


class _Words:
    def text(self, text: str) -> int:
        return len(text.split())

    def prompt(self, context: str, question: Question) -> int:
        return self.text(context) + self.text(question.text)
