"""The training mixture: which topics share a document, at which length, and how sequences become batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from farspan.tasks import _vocabulary as vocabulary
from farspan.tasks import _wording as wording
from farspan.tasks._facts import Language
from training import topics
from training.copying import quotes, repeats
from training.document import Example, Topic, assemble
from training.formats import with_formats
from training.source import Source
from training.tokenizer import PAD
from training.variety import varied

REPEAT_SHARE, PROSE_SHARE = 0.07, 0.25
VARIED = 0.8
"""Share of documents in wordings made up for them."""


@dataclass(frozen=True, kw_only=True)
class Length:
    """A sequence length, how many of them make a batch, and how often such a batch comes."""

    tokens: int
    batch: int
    share: float


def _lengths(*shares: float) -> tuple[Length, ...]:
    return tuple(Length(tokens=256 << i, batch=32 >> i, share=share) for i, share in enumerate(shares))


LENGTHS = _lengths(0.24, 0.22, 0.2, 0.16, 0.13, 0.05)
LAST_LENGTHS = _lengths(0.1, 0.15, 0.2, 0.2, 0.2, 0.15)
"""Shares of 256 to 8192 tokens while the rates stay, and while they fall: looking up is learned in short sequences,
which are many and fast, and kept in long ones. A run of 13 million tokens that had a third of the first shares of 4096
and 8192 won much at 1024, little or nothing at 4096, and lost at 8192."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """A form of topic: how often a document has it, and how many tokens a statement and a question of it take."""

    make: Callable[[Random, Language, int, int], Topic]
    share: float
    statement: int = 20
    turn: int = 32


QUOTES = (
    Form(make=lambda random, language, _, turns: quotes(random, language, turns), share=0.08, turn=60),
    Form(make=lambda random, language, _, turns: quotes(random, language, turns, bare=True), share=0.07, turn=40),
)
QUOTED = 0.5
"""Share of the documents of 2,048 tokens and more that are quoted besides: among much text, what to go on with is told
by many tokens before it, not by two.
"""
FORMS = (
    Form(make=topics.needles, share=0.38),
    Form(make=topics.bare_needles, share=0.04),
    Form(make=topics.many_values, share=0.12, turn=44),
    Form(make=topics.many_keys, share=0.12, turn=80),
    Form(make=topics.reverses, share=0.04),
    Form(make=topics.chains, share=0.15, statement=12, turn=36),
    Form(make=topics.overviews, share=0.04),
    *QUOTES,
)
MOST_STATEMENTS, MOST_TURNS = 44, 16


class Batch(NamedTuple):
    """Ids, weights and owners `[B, length]`; an owner is the answer a target is part of, from 1 on, 0 for none.

    `kinds` says of each answer what was asked.
    """

    ids: np.ndarray
    weights: np.ndarray
    owners: np.ndarray
    kinds: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Draws sequences. Everything follows from the random generator handed in."""

    tokenizer: Tokenizer
    code: Source
    prose: Source
    language: Language

    @classmethod
    def training(cls, tokenizer: Tokenizer, code: Source, prose: Source) -> Mixture:
        language = Language(wording=wording.TRAINING, vocabulary=vocabulary.TRAINING, words=code.words)
        return cls(tokenizer=tokenizer, code=code, prose=prose, language=language)

    def example(self, length: int, random: Random) -> Example:
        """One sequence of at most `length` tokens."""
        while True:
            source = self.prose if random.random() < PROSE_SHARE else self.code
            if random.random() < REPEAT_SHARE:
                text = source.span(min(2 * length, len(source)), random)
                return repeats(random, self.tokenizer, text, length)
            made = assemble(self.tokenizer, source, self._topic(length, random), length, random)
            if made is not None and made.turns:
                return made

    def _topic(self, length: int, random: Random) -> Topic:
        """One form of topic, in long documents two or three; two never share a kind, so that counting stays right."""
        count = 1 if length <= 512 else random.randint(1, 2) if length <= 1024 else random.randint(2, 3)
        forms = random.choices(FORMS, [form.share for form in FORMS], k=count)
        if length >= 2048 and random.random() < QUOTED:
            forms[-1] = random.choice(QUOTES)
        language = self._language(random)
        kinds = random.sample(language.wording.kinds, len(language.wording.kinds))
        made: list[Topic] = []
        for number, form in enumerate(forms):
            own = replace(language, wording=replace(language.wording, kinds=tuple(kinds[number::count])))
            made.append(_sized(form, own, length // count, random))
        return topics.join(made, random)

    def _language(self, random: Random) -> Language:
        formats = with_formats(self.language.vocabulary, random)
        if random.random() > VARIED:
            return replace(self.language, vocabulary=formats)
        return replace(
            self.language, vocabulary=formats, wording=varied(self.language.wording, self.language.words, random)
        )

    def batch(self, step: int, seed: int, lengths: Sequence[Length] = LENGTHS) -> Batch:
        """The batch of one step, the same for the same arguments."""
        random = Random(f"{seed}:{step}")
        length = random.choices(lengths, [each.share for each in lengths])[0]
        return collate([self.example(length.tokens, random) for _ in range(length.batch)], length.tokens)


def _sized(form: Form, language: Language, room: int, random: Random) -> Topic:
    """As many statements and questions as fill a part of the room, often nearly all of it."""
    turns = max(1, min(MOST_TURNS, round(room * random.uniform(0.35, 0.6) / form.turn)))
    most = max(1, min(MOST_STATEMENTS, int((room - turns * form.turn) * 0.9 / form.statement)))
    few = round(math.exp(random.uniform(0, math.log(most + 0.49))))
    return form.make(random, language, most if random.random() < 0.7 else few, turns)


def collate(examples: Sequence[Example], length: int) -> Batch:
    """Pad to `length` on the right, so that there are few shapes; padding has weight 0 and is never a target."""
    shape = (len(examples), length)
    ids = np.full(shape, PAD, dtype=np.int64)
    weights, owners = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.int64)
    kinds: list[str] = []
    for row, example in enumerate(examples):
        used = len(example.ids)
        ids[row, :used] = example.ids
        weights[row, :used] = example.weights
        own = np.asarray(example.owners)
        owners[row, :used] = np.where(own > 0, own + len(kinds), 0)
        kinds += example.kinds
    return Batch(ids, weights, owners, tuple(kinds))
