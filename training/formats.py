"""Keys and values in formats made up per document, so that copying any string is learned and not some types of it.

A format is one to five runs of characters with joints between them: `d4-a3`, `Q7:03`, `brake.salt`. Small alphabets
make strings whose tokens repeat, and runs that hardly vary (`20-4`, `20-9`) strings that begin or go on alike, which
only position tells apart. Formats of evaluation's own types never come up: no
joint is a slash, and no string is a date.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from farspan.tasks._vocabulary import Vocabulary

JOINTS = ("-", "_", ".", ":", "#", "+", "=", "@", "~", "x", "")
DATE = re.compile(r"\d{4}-\d\d-\d\d")
SHARE_KEYS, SHARE_VALUES = 0.4, 0.5
"""Of the documents that use made-up formats for their keys, and for their values."""
SHARE_ALIKE = 0.3
"""Of the runs beside others that hardly vary within a document."""

PAIRS = tuple(a + b for a in string.ascii_lowercase for b in string.ascii_lowercase)

Run = Callable[[Random, Sequence[str]], str]


def with_formats(vocabulary: Vocabulary, random: Random) -> Vocabulary:
    """The vocabulary of one document: as it was, or with one made-up format for keys, for values or for both."""
    if random.random() < SHARE_KEYS:
        vocabulary = replace(vocabulary, keys={"format": (made_up(random), 1.0)})
    if random.random() < SHARE_VALUES:
        vocabulary = replace(vocabulary, values={"format": (made_up(random, worded=0.1), 1.0)})
    return vocabulary


@dataclass(frozen=True, kw_only=True)
class Format:
    """Runs of characters, each followed by its joint but the last; a maker of strings of that form."""

    runs: tuple[Run, ...]
    joints: tuple[str, ...]

    def __call__(self, random: Random, words: Sequence[str]) -> str:
        while True:
            said = [run(random, words) for run in self.runs]
            made = said[0] + "".join(joint + each for joint, each in zip(self.joints, said[1:], strict=True))
            if not DATE.search(made):
                return made


def made_up(random: Random, worded: float = 0.3) -> Format:
    """A format drawn at random, with enough different strings for a document's forty keys.

    `worded` is how often a run is a word: few for values, which must not look like the words around them.
    """
    while True:
        parts = random.choice((1, 1, 2, 2, 2, 3, 3, 4, 5))
        same = random.choice(JOINTS)
        joints = (same if random.random() < 0.7 else random.choice(JOINTS) for _ in range(parts - 1))
        made = Format(runs=tuple(_run(random, parts, worded) for _ in range(parts)), joints=tuple(joints))
        if len({made(random, PAIRS) for _ in range(60)}) > 50:
            return made


def _run(random: Random, parts: int, worded: float) -> Run:
    longest = {1: 10, 2: 6, 3: 4, 4: 3, 5: 2}[parts]
    shortest = 3 if parts == 1 else 1
    low, high = sorted((random.randint(shortest, longest), random.randint(shortest, longest)))
    if random.random() < worded:
        return _word(random)
    alphabet = _alphabet(random)
    if parts > 1 and random.random() < SHARE_ALIKE:
        few = ["".join(random.choices(alphabet, k=random.randint(low, high))) for _ in range(random.randint(1, 3))]
        return lambda dice, _: dice.choice(few)
    return lambda dice, _: "".join(dice.choices(alphabet, k=dice.randint(low, high)))


def _word(random: Random) -> Run:
    style: Callable[[str], str] = random.choice((str.lower, str.lower, str.capitalize, str.upper))
    return lambda dice, words: style(dice.choice(words))


def _alphabet(random: Random) -> str:
    lower, upper, digits = string.ascii_lowercase, string.ascii_uppercase, string.digits
    wide = random.choice(
        (digits, digits, digits, digits, lower, upper, digits + "abcdef", upper + digits, lower + upper)
    )
    return "".join(random.sample(wide, random.randint(2, 6))) if random.random() < 0.25 else wide
