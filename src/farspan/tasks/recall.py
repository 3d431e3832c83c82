"""Recall: what the reference model is judged with, and what the table of methods stands on.

Eight questions are asked of every context, so that one reading serves many. Statements, questions and the text around
them have the very form that the reference model was trained on (`\\n\\nQuestion: ...\\nAnswer:`, statements as lines of
their own). `seen` wordings, keys and values are those of its training, `unseen` ones it never met; the text is never
one that training read.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import ClassVar, Literal, NamedTuple, TypeVar

from farspan.errors import UsageError
from farspan.tasks import _haystack, _vocabulary, _wording
from farspan.tasks._facts import (
    Fact,
    Language,
    facts_of_one_kind,
    make_chains,
    question_about,
    question_about_chain,
    question_about_several,
    stated_chains,
    stated_facts,
)
from farspan.tasks._fit import fit
from farspan.tasks._haystack import InHaystack
from farspan.tasks._insert import Span, insert, lattice
from farspan.tasks._quote import Quote, quotes
from farspan.tasks._stretch import stretch
from farspan.tasks.base import Counter, Label, Passage, Question, Score, Task
from farspan.tasks.perplexity import Following

QUESTIONS = 8
QUOTE_TOKENS, CONTINUATION_TOKENS = 12, 8

Wordings = Literal["seen", "unseen"]
Owner = TypeVar("Owner")


@cache
def language(wording: Wordings, haystack: str) -> Language:
    """The wordings and vocabulary of training, or those that only evaluation has; words are the haystack's own."""
    words = tuple(sorted(set(re.findall(r"\b[a-z]{4,9}\b", _haystack.load(haystack).text))))
    if wording == "seen":
        return Language(wording=_wording.TRAINING, vocabulary=_vocabulary.TRAINING, words=words)
    return Language(wording=_wording.EVALUATION, vocabulary=_vocabulary.EVALUATION, words=words)


class Asked(NamedTuple):
    """A question, its answers, and the statements that hold them, by their numbers."""

    text: str
    references: tuple[str, ...]
    evidence: tuple[int, ...]
    labels: dict[str, Label]
    probe: str = ""


class Stated(NamedTuple):
    """Statements in document order, and everything asked about them."""

    lines: Sequence[str]
    asked: Sequence[Asked]


@dataclass(frozen=True, kw_only=True)
class Recall(InHaystack):
    """Statements as lines of a text, and questions about them."""

    suite: str = "recall"
    haystack: str = "code"
    wording: Wordings = "seen"
    questions: int = QUESTIONS
    max_new_tokens: int = 32
    minimum: ClassVar[int] = 1024

    @abstractmethod
    def state(self, random: Random, targets: Sequence[float]) -> Stated:
        """What the text states, and a question for each target: the place, in [0, 1), of its first evidence among the
        statements.
        """

    def generate(self, index: int, *, length: int, counter: Counter, random: Random) -> Passage:
        """See `Task.generate`. Statements lie evenly apart; question by question depths go round the document."""
        lines, asked = self.state(random, lattice(index, self.questions))
        text = stretch(_haystack.load(self.haystack), random)
        depths = sorted(lattice(index, len(lines)))

        def passage(characters: int) -> Passage:
            units = (text(characters) + "\n").splitlines(keepends=True)
            context, spans = insert(units, lines, depths)
            return Passage(context=context, questions=tuple(self._question(each, spans) for each in asked))

        return fit(self, passage, length=length, counter=counter)

    def _question(self, asked: Asked, spans: Sequence[Span]) -> Question:
        return Question(
            text=asked.text,
            references=asked.references,
            probe=asked.probe,
            max_new_tokens=self.max_new_tokens,
            gold=tuple(spans[number] for number in asked.evidence),
            labels={**asked.labels, "wording": self.wording},
        )

    def score(self, question: Question, reply: str) -> Score:
        """Official: the share of values that the reply names, as whole words. Strict: just these, in this order."""
        named = sum(_names(reply, value) for value in question.references)
        exact = reply.strip().removesuffix(".") == self.oracle(question)
        return Score(official=named / len(question.references), strict=float(exact))


def _names(reply: str, value: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", reply) is not None


@dataclass(frozen=True, kw_only=True)
class Needles(Recall):
    """Say the value, or all values, of one key or of several.

    The text states `groups` kinds of fact (a password, a flight), each about `keys` keys with `values` values each;
    `together` keys of a kind are asked for at once.
    """

    groups: int = 1
    keys: int = 1
    values: int = 1
    together: int = 1

    def state(self, random: Random, targets: Sequence[float]) -> Stated:
        """See `Recall.state`."""
        spoken = language(self.wording, self.haystack)
        facts, types = _groups(random, spoken, self.groups, self.keys, self.values)
        lines, owners = _interleaved(random, [stated_facts(random, spoken.wording, group) for group in facts])
        asked = []
        for place, (group, number) in _nearest_owners(owners, targets):
            fact = facts[group][number]
            others = random.sample([each for each in facts[group] if each != fact], self.together - 1)
            chosen = [number, *(facts[group].index(each) for each in others)]
            evidence = [at for each in chosen for at, owner in enumerate(owners) if owner == (group, each)]
            text, references = _ask(random, spoken, [facts[group][each] for each in chosen])
            labels: dict[str, Label] = {"kind": fact.kind, **types[group]}
            asked.append(Asked(text, references, _first(place, evidence), labels))
        return Stated(lines, asked)


def _ask(random: Random, spoken: Language, facts: Sequence[Fact]) -> tuple[str, tuple[str, ...]]:
    if len(facts) == 1:
        return question_about(random, spoken.wording, facts[0]), facts[0].values
    return question_about_several(random, spoken.wording, facts), tuple(fact.values[0] for fact in facts)


def _groups(
    random: Random, spoken: Language, groups: int, keys: int, values: int
) -> tuple[list[list[Fact]], list[dict[str, str]]]:
    """Facts of `groups` different kinds, no value twice -> (facts by group, types of key and value by group)."""
    made: list[list[Fact]] = []
    types: list[dict[str, str]] = []
    taken: set[str] = set()
    while len(made) < groups:
        facts, its = facts_of_one_kind(random, spoken, keys, values)
        new = {value for fact in facts for value in fact.values}
        if facts[0].kind not in taken and not new & taken:
            taken |= new | {facts[0].kind}
            made.append(facts)
            types.append(its)
    return made, types


def _interleaved(
    random: Random, groups: Sequence[Sequence[tuple[str, int]]]
) -> tuple[list[str], list[tuple[int, int]]]:
    """Statements of all groups mixed, each group in its order -> (lines, the group and fact of each)."""
    order = [group for group, its in enumerate(groups) for _ in its]
    random.shuffle(order)
    left = [iter(its) for its in groups]
    stated = [(group, *next(left[group])) for group in order]
    return [line for _, line, _ in stated], [(group, fact) for group, _, fact in stated]


def _nearest_owners(owners: Sequence[Owner], targets: Iterable[float]) -> list[tuple[int, Owner]]:
    """For each target a statement near that place, its owner one that was not taken before, as long as there are."""
    chosen: list[tuple[int, Owner]] = []
    free = set(owners)
    for target in targets:
        wanted = int(target * len(owners))
        places = [place for place, owner in enumerate(owners) if owner in free]
        place = min(places, key=lambda place: abs(place - wanted))
        chosen.append((place, owners[place]))
        free = (free - {owners[place]}) or set(owners)
    return chosen


def _first(place: int, evidence: Iterable[int]) -> tuple[int, ...]:
    """The evidence with the statement that gives the depth in front."""
    return (place, *(each for each in evidence if each != place))


@dataclass(frozen=True, kw_only=True)
class ManyNeedles(Needles):
    """Say the value of one key among very many of the same kind."""

    keys: int = 40
    minimum: ClassVar[int] = 2048


@dataclass(frozen=True, kw_only=True)
class SeveralNeedles(Needles):
    """Say the values of several keys that are asked for at once, bare or each after its key and a colon."""

    version: ClassVar[int] = 2  # replies may name the keys, and may be longer for it
    keys: int = 8
    together: int = 4
    max_new_tokens: int = 128

    def score(self, question: Question, reply: str) -> Score:
        """Official: the share of values that the reply names, as whole words. Strict: just these, in this order, each
        bare or after words that end in a colon.
        """
        bare = ", ".join(part.rpartition(": ")[2] for part in reply.strip().split(", "))
        return Score(official=super().score(question, reply).official, strict=super().score(question, bare).strict)


@dataclass(frozen=True, kw_only=True)
class SecondQuestion(Needles):
    """Say the value of one key, then those of keys of another kind elsewhere, which the first question says nothing of.

    In mode `aware` the text is read with the first question as probe, and what is kept for that does not help the
    second: another kind, key and value.
    """

    groups: int = 2
    keys: int = 4

    def state(self, random: Random, targets: Sequence[float]) -> Stated:
        """See `Recall.state`: the first target's question, then those of the other kind, then of its own."""
        made = super().state(random, targets)
        first = made.asked[0]
        kinds = [asked.labels["kind"] for asked in made.asked]
        order = sorted(range(len(kinds)), key=lambda number: (number != 0, kinds[number] == kinds[0]))
        relation = {True: "same kind", False: "other kind"}
        asked = [
            each._replace(
                probe=first.text,
                labels={
                    **each.labels,
                    "turn": turn + 1,
                    "relation": "first" if each is first else relation[each.labels["kind"] == first.labels["kind"]],
                },
            )
            for turn, each in enumerate(made.asked[number] for number in order)
        ]
        return Stated(made.lines, asked)


@dataclass(frozen=True, kw_only=True)
class Chains(Recall):
    """Name all variables that hold a value, each set from the one before; one chain for every question."""

    hops: int = 2
    max_new_tokens: int = 64

    def state(self, random: Random, targets: Sequence[float]) -> Stated:
        """See `Recall.state`."""
        wording = language(self.wording, self.haystack).wording
        chains = make_chains(random, [self.hops] * self.questions)
        lines, owners = zip(*stated_chains(random, wording, chains), strict=True)
        asked = []
        for place, number in _nearest_owners(owners, targets):
            evidence = [at for at, owner in enumerate(owners) if owner == number]
            text = question_about_chain(random, wording, chains[number])
            asked.append(Asked(text, chains[number].names, _first(place, evidence), {"hops": self.hops}))
        return Stated(lines, asked)


@dataclass(frozen=True, kw_only=True)
class Quotes(InHaystack):
    """Continue a unique quote of about 12 tokens for 8 more, word for word."""

    suite: str = "recall"
    haystack: str = "code"
    questions: int = QUESTIONS
    minimum: ClassVar[int] = 1024

    def generate(self, index: int, *, length: int, counter: Counter, random: Random) -> Passage:
        """See `Task.generate`. Raises UsageError for a text that has too few unique lines."""
        text = stretch(_haystack.load(self.haystack), random)
        depths = lattice(index, self.questions)

        def passage(characters: int) -> Passage:
            context = text(characters)
            found = quotes(context, depths, counter, tokens=QUOTE_TOKENS, rest=CONTINUATION_TOKENS)
            if len(found) < self.questions:
                raise UsageError(
                    f"{self.id} needs {self.questions} quotes that stand only once, and {characters} characters of the "
                    f"haystack {self.haystack!r} have {len(found)}; give a text that does not repeat itself"
                )
            return Passage(context=context, questions=tuple(self._question(quote) for quote in found))

        return fit(self, passage, length=length, counter=counter, least=2000)

    def _question(self, quote: Quote) -> Question:
        return Question(
            kind="continuation",
            text="\n\n" + quote.text,
            references=(quote.rest.strip(),),
            max_new_tokens=CONTINUATION_TOKENS,
            gold=((quote.start, quote.end),),
            labels={"lines": "one" if quote.inside else "several"},
        )

    def score(self, question: Question, reply: str) -> Score:
        """Official: the reply begins with the continuation, however its blanks are. Strict: character by character."""
        (rest,) = question.references
        loose = " ".join(reply.split()).startswith(" ".join(rest.split()))
        return Score(official=float(loose), strict=float(reply.lstrip().startswith(rest)))


_STATED = (
    Needles(name="one_needle", groups=8),
    Needles(name="four_keys", groups=2, keys=4),
    ManyNeedles(name="forty_keys"),
    Needles(name="multi_value", groups=2, keys=4, values=3, max_new_tokens=64),
    SeveralNeedles(name="multi_query"),
    Chains(name="chain_2", hops=2),
    Chains(name="chain_4", hops=4),
    SecondQuestion(name="second_question"),
)

TASKS: tuple[Task, ...] = (
    *_STATED,
    *(replace(task, name=f"{task.name}_unseen", wording="unseen") for task in _STATED),
    Quotes(name="quote"),
    Following(name="perplexity", suite="recall", haystack="code"),
)
