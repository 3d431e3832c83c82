"""Wordings made up per document, so that what is learned is to match key and kind, not some dozens of sentences.

Four kinds of variety: kinds that nobody listed ("harbor quota"), framed sentences (an opener or a closer around a
listed one), sentences put together from parts (training.grammar), and bare frames: key, kind and value in any order
between words drawn from the library's text. Openers, closers and heads share no phrase with evaluation's wordings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from farspan.tasks._wording import Wording
from training import grammar

HEADS = (
    "number code name level value size limit mark seal token figure rate slot label tag rank grade count date pass "
    "term stamp line path root group mode state order weight height depth quota bonus fee fine area zone ratio offset"
).split()
OPENERS = (
    "By the way,", "In short,", "For the record,", "Update:", "Reminder:", "FYI,", "As agreed,", "Once more:", "First,",
    "Second,", "Also,", "Meanwhile,", "Important:", "P.S.", "Today's change:", "As far as I know,", "In this release,",
    "After the move,", "Before you start:", "Internally,", "On the other hand,", "Correction:", "Entry:", "Memo:",
)  # fmt: skip
CLOSERS = (
    ", as always", ", I think", ", at least for now", " (see above)", ", nothing else", ", they say", " these days",
    ", no matter what", " until further notice", ", for good reason", " in every case", ", so be careful",
)  # fmt: skip
ASKING = (
    "Quick question:", "Tell me:", "One more thing:", "Hello,", "Next:", "Now,", "Help me:", "Question two:",
    "Let us see:", "Checking again:", "From the notes:", "Just to be sure:", "Hm,", "So,", "Again,",
)  # fmt: skip
THANKS = (" Thanks.", " Be brief.", " Only that.", " It matters.", " Take care.", "")
SHARE_KINDS = 0.5
SHARE_COMPOSED, SHARE_BARE, SHARE_FRAMED = 0.45, 0.1, 0.15
"""Of the sentences; the rest stay as they were listed."""

Compose = Callable[[Sequence[str], Random], str]


def varied(wording: Wording, words: Sequence[str], random: Random, statements: int = 12) -> Wording:
    """The wording of one document: some kinds invented, some sentences made up, some framed; the rest as they were."""
    kinds = tuple(invented_kind(words, random) if random.random() < SHARE_KINDS else kind for kind in wording.kinds)

    def some(listed: Sequence[str], compose: Compose, parts: tuple[str, ...], count: int) -> tuple[str, ...]:
        return tuple(_question(listed, compose, words, random, parts) for _ in range(count))

    return replace(
        wording,
        kinds=tuple(dict.fromkeys(kinds)),
        statements=tuple(_statement(wording, words, random) for _ in range(statements)),
        questions=some(wording.questions, grammar.question, ("{kind}", "{key}"), statements),
        several_values=some(wording.several_values, grammar.several_values, ("{kinds}", "{key}"), 6),
        several_keys=some(wording.several_keys, grammar.several_keys, ("{kinds}", "{keys}"), 6),
        counts=some(wording.counts, grammar.count, (), 4),
        listings=some(wording.listings, grammar.listing, (), 4),
        chains=tuple(
            grammar.chain(words, random) if random.random() < 0.6 else each for each in random.sample(wording.chains, 3)
        ),
        chain_questions=some(wording.chain_questions, grammar.chain_question, ("{value}",), 6),
        quotes=some(wording.quotes, grammar.quote_question, ('"{quote}"',), 6),
    )


def invented_kind(words: Sequence[str], random: Random) -> str:
    """`harbor quota`, `rebuild`, `lazy import order`: one to three words, the last often a usual one."""
    last = random.choice(HEADS) if random.random() < 0.7 else random.choice(words)
    before = random.choices(words, k=random.choice((0, 1, 1, 1, 2)))
    return " ".join([*before, last])


def _statement(wording: Wording, words: Sequence[str], random: Random) -> str:
    listed, dice = random.choice(wording.statements), random.random()
    if dice < SHARE_COMPOSED:
        composed = grammar.statement(words, random)
        return composed if random.random() < 0.75 else _framed(composed, random.choice(OPENERS), "")
    if dice < SHARE_COMPOSED + SHARE_BARE:
        return _bare(("{kind}", "{key}", "{value}"), words, random, random.choice((".", ".", "", ";")))
    if dice < SHARE_COMPOSED + SHARE_BARE + SHARE_FRAMED:
        return _framed(listed, random.choice((*OPENERS, "")), random.choice((*CLOSERS, "")))
    return listed


def _question(
    listed: Sequence[str], compose: Compose, words: Sequence[str], random: Random, parts: tuple[str, ...]
) -> str:
    """A sentence composed, bare (never without `parts`, which would not say what is asked), framed, or as listed."""
    dice, chosen = random.random(), random.choice(listed)
    if dice < SHARE_COMPOSED:
        composed = compose(words, random)
        return composed if random.random() < 0.8 else f"{random.choice(ASKING)} {composed}{random.choice(THANKS)}"
    if parts and dice < SHARE_COMPOSED + SHARE_BARE:
        return _bare(parts, words, random, random.choice(("?", "?", ".", "")))
    if dice < SHARE_COMPOSED + SHARE_BARE + SHARE_FRAMED:
        return f"{random.choice(ASKING)} {chosen}{random.choice(THANKS)}"
    return chosen


def _framed(sentence: str, opener: str, closer: str) -> str:
    ended = sentence[:-1] + closer + "." if sentence.endswith(".") else sentence + closer
    return f"{opener} {ended}" if opener else ended


def _bare(parts: Sequence[str], words: Sequence[str], random: Random, end: str) -> str:
    """The parts in any order with nought to three words around each."""
    shuffled = random.sample(parts, len(parts))
    said: list[str] = random.choices(words, k=random.choice((0, 1, 2)))
    for part in shuffled:
        said += [part, *random.choices(words, k=random.choice((0, 1, 1, 2, 3)))]
    return " ".join(said) + end
