"""Copying: quotes of the document to go on from, and random segments that come again and again."""

from __future__ import annotations

import re
from random import Random

import numpy as np
from tokenizers import Tokenizer

from farspan.tasks._facts import Language
from farspan.tasks._wording import Wording
from training.document import Example, Topic, Turn, encode
from training.tokenizer import BOS

REPEATED = 0.4
"""The weight of a token that comes again; a sequence has hundreds of them, and few tokens of answers."""


def quote_turn(random: Random, wording: Wording, document: str) -> Turn | None:
    """A unique part of a line, to be continued to the line's end."""
    at = random.randrange(max(1, len(document) - 200))
    start = document.find("\n", at) + 1
    stop = document.find("\n", start)
    line = document[start : stop if stop >= 0 else len(document)].rstrip()
    blanks = [i for i in range(24, len(line) - 8) if line[i] == " " and line[i - 1] != " " and line[i + 1] != " "]
    if not blanks:
        return None
    split = random.choice(blanks)
    quote = line[max(0, split - random.randint(24, 60)) : split].lstrip()
    if document.count(quote) != 1:
        return None
    question = random.choice(wording.quotes).format(quote=quote)
    return Turn.ask(question, [line[split + 1 :]], "quote")


def bare_quote(random: Random, document: str) -> Turn | None:
    """A unique stretch of text, to be continued word for word for a while.

    It is cut at blanks, as its continuation is: inside a word the tokens would be others than the document's.
    """
    start = _blank(document, random.randrange(max(1, len(document) - 150)))
    middle = _blank(document, start + random.randint(25, 50))
    stop = _blank(document, middle + random.randint(16, 50))
    quote, rest = document[start + 1 : middle], document[middle:stop]
    if not start < middle < stop < start + 250 or document.count(quote) != 1:
        return None
    return Turn(prompt=random.choice(("\n>>> ", "\n", "\n\n")) + quote, answer=rest, stop=False, kind="bare quote")


def _blank(document: str, at: int) -> int:
    """The first blank from there on that stands between two words; the end of the text when there is none."""
    found = re.compile(r"(?<=\S) (?=\S)").search(document, at)
    return found.start() if found else len(document)


def quotes(random: Random, language: Language, turns: int, *, bare: bool = False) -> Topic:
    """Quotes to continue; made once the document stands."""

    def late(document: str) -> list[Turn]:
        tries = (
            bare_quote(random, document) if bare else quote_turn(random, language.wording, document)
            for _ in range(3 * turns)
        )
        return [turn for turn in tries if turn][:turns]

    return Topic(late=late)


def repeats(random: Random, tokenizer: Tokenizer, text: str, length: int) -> Example:
    """Random segments that come again and again: copying without content, which makes recall general.

    Half of the time all segments are drawn from a few tokens only, as numbers are: then no single token tells where
    to copy from, the last three do.
    """
    generator = np.random.default_rng(random.getrandbits(32))
    pool = encode(tokenizer, text)
    few = random.random() < 0.5
    alphabet = _alphabet(random, tokenizer) if few else []
    longest = 12 if few else random.randint(6, max(8, min(24, length // 4)))
    sure = 3 if few else 2
    ids, weights, owners, again = [BOS], [0.0], [0], 0
    segments: list[list[int]] = []
    while len(ids) < length:
        if segments and random.random() < 0.6:
            segment, again = random.choice(segments[-60:]), again + 1
            weights += [0.0] * sure + [REPEATED] * (len(segment) - sure)
            owners += [0] * sure + [again] * (len(segment) - sure)
        else:
            size = random.randint(6, longest)
            if few:
                segment = random.choices(alphabet, k=size)
            elif random.random() < 0.6 or len(pool) <= size:
                segment = generator.integers(3, tokenizer.get_vocab_size(), size).tolist()
            else:
                first = random.randrange(len(pool) - size)
                segment = pool[first : first + size]
            segments.append(segment)
            weights += [0.0] * size
            owners += [0] * size
        ids += segment
    return Example(ids=ids[:length], weights=weights[:length], owners=owners[:length], kinds=("repeat",) * again)


def _alphabet(random: Random, tokenizer: Tokenizer) -> list[int]:
    """The ten digits, or 8 to 32 tokens at random."""
    if random.random() < 0.5:
        return encode(tokenizer, "0123456789")
    return random.sample(range(3, tokenizer.get_vocab_size()), random.randint(8, 32))
