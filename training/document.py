"""From a haystack, statements and questions to one training sequence in the form that farspan itself uses.

`<bos>` document, then per turn `\\n\\nQuestion: ...\\nAnswer:` and ` answer<eos>`. Document, prompt and answer are
tokenised each as its own string, exactly as farspan tokenises them when it reads first and asks later.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from tokenizers import Tokenizer

from training.source import Source, line_starts, nearest
from training.tokenizer import BOS, EOS

PROMPT = "\n\nQuestion: {question}\nAnswer:"
BLANK_WEIGHT, FIRST_WEIGHT, REST_WEIGHT = 0.5, 2.0, 1.0
FIRST_TURN_FACTOR = 1.75
"""farspan forks: every question may be the first one after the document, though only one per sequence is. No product
of these weights equals another one, so that a target's weight says what it is."""

STYLES = ("line", "comment", "indented", "inline")


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A prompt and its answer. `values` are the parts of the answer that each have to be looked up, and `starts` the
    characters at which they begin.
    """

    prompt: str
    answer: str
    values: tuple[str, ...] = ()
    starts: tuple[int, ...] = ()
    stop: bool = True
    kind: str = "needle"

    @classmethod
    def ask(cls, question: str, values: Sequence[str], kind: str = "needle", keys: Sequence[str] = ()) -> Turn:
        """A question, answered by `values` with commas between them, each after its key where `keys` are given."""
        answer, starts = "", []
        for value, key in zip(values, keys or [""] * len(values), strict=True):
            answer += (", " if answer else " ") + (f"{key}: " if key else "")
            starts.append(len(answer))
            answer += value
        prompt = PROMPT.format(question=question)
        return cls(prompt=prompt, answer=answer, values=tuple(values), starts=tuple(starts), kind=kind)


@dataclass(frozen=True, kw_only=True)
class Topic:
    """Statements in document order, and the turns about them. `late` turns are made from the finished document."""

    statements: tuple[str, ...] = ()
    turns: tuple[Turn, ...] = ()
    late: Callable[[str], list[Turn]] | None = None


@dataclass(frozen=True, kw_only=True)
class Example:
    """Token ids with the weight of each as a target: 0 for text, more for answers.

    `owners` says of each target which answer it is part of, from 1 on, and `kinds` of each answer what was asked.
    """

    ids: list[int]
    weights: list[float]
    owners: list[int]
    kinds: tuple[str, ...]
    document: str = ""
    turns: tuple[Turn, ...] = ()
    document_tokens: int = 0
    depths: tuple[float, ...] = field(default=())


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


def encode_turn(tokenizer: Tokenizer, turn: Turn, factor: float = 1.0) -> tuple[list[int], list[float]]:
    """Ids and weights: the token that begins a value counts double, because finding it is the hard part."""
    prompt = encode(tokenizer, turn.prompt)
    encoding = tokenizer.encode(turn.answer, add_special_tokens=False)
    weights = [REST_WEIGHT] * len(encoding.ids)
    for begins in turn.starts:
        weights[next(i for i, (start, stop) in enumerate(encoding.offsets) if start <= begins < stop)] = FIRST_WEIGHT
    if encoding.tokens and encoding.tokens[0] == "Ġ":
        weights[0] = BLANK_WEIGHT
    ids = prompt + encoding.ids + [EOS] * turn.stop
    weights = [0.0] * len(prompt) + [weight * factor for weight in weights + [REST_WEIGHT] * turn.stop]
    return ids, weights


def insert(
    text: str, statements: Sequence[str], random: Random, depths: Sequence[float] | None = None
) -> tuple[str, tuple[float, ...]]:
    """Put statements into `text` in order, at random or at given depths, as lines, comments or inside prose.

    Returns the document and where each statement then begins, as a fraction of its characters.
    """
    targets = sorted(random.random() for _ in statements) if depths is None else list(depths)
    lines = line_starts(text)
    if text and not text.endswith("\n"):
        lines = lines[:-1] if len(lines) > 1 else lines
    sentences = [match.end() for match in re.finditer(r"[a-z]\. (?=[A-Z])", text)]
    pieces: list[str] = []
    starts: list[int] = []
    cursor = written = 0
    style_of_all = random.choice(STYLES) if random.random() < 0.5 else None
    for statement, target in zip(statements, targets, strict=True):
        style = style_of_all or random.choice(STYLES)
        place = _place(style, int(target * len(text)), lines, sentences, cursor)
        dressed = _dress(statement, style if style != "inline" or place in sentences else "line", text, place)
        starts.append(written + place - cursor + dressed.index(statement))
        pieces += [text[cursor:place], dressed]
        written += place - cursor + len(dressed)
        cursor = place
    document = "".join([*pieces, text[cursor:]])
    return document, tuple(start / max(1, len(document)) for start in starts)


def _place(style: str, target: int, lines: list[int], sentences: list[int], least: int) -> int:
    """An offset not before `least`, so that the statements keep their order."""
    if style == "inline" and sentences:
        near = nearest(sentences, target)
        if near >= least and abs(near - target) < 400:
            return near
    near = nearest(lines, target)
    if near >= least:
        return near
    index = bisect_left(lines, least)
    return lines[index] if index < len(lines) else least


def _dress(statement: str, style: str, text: str, place: int) -> str:
    if style == "inline":
        return statement + (" " if statement.endswith((".", ";")) else ". ")
    head = "" if place == 0 or text[place - 1 : place] == "\n" else "\n"
    indent = ""
    if style in ("indented", "comment"):
        following = re.match(r"[ ]*", text[place : place + 40])
        indent = following.group() if following else ""
    mark = "# " if style == "comment" else ""
    return f"{head}{indent}{mark}{statement}\n"


def assemble(
    tokenizer: Tokenizer,
    source: Source,
    topic: Topic,
    length: int,
    random: Random,
    depths: Sequence[float] | None = None,
) -> Example | None:
    """One sequence of at most `length` tokens, filled up with haystack; None when the facts alone do not fit."""
    asked = [encode_turn(tokenizer, turn) for turn in topic.turns]
    asked_tokens = sum(len(ids) for ids, _ in asked)
    reserve = 80 * max(1, length // 256) if topic.late else 0
    room = length - 1 - asked_tokens - reserve
    hay = room - sum(len(encode(tokenizer, statement)) + 3 for statement in topic.statements)
    for _ in range(6):
        if hay < 0:
            return None
        fixed = Random(random.getrandbits(64))
        text = source.span(hay, fixed) if hay > 8 else "\n"
        document, placed = insert(text, topic.statements, fixed, depths)
        ids = encode(tokenizer, document)
        if len(ids) <= room:
            break
        hay -= len(ids) - room + 4
    else:
        return None
    turns = list(topic.turns)
    if topic.late:
        turns += topic.late(document)
        random.shuffle(turns)
    return _join(tokenizer, document, ids, turns, length, placed)


def _join(
    tokenizer: Tokenizer,
    document: str,
    document_ids: list[int],
    turns: list[Turn],
    length: int,
    depths: tuple[float, ...],
) -> Example:
    ids = [BOS, *document_ids]
    weights = [0.0] * len(ids)
    owners = [0] * len(ids)
    kept: list[Turn] = []
    for turn in turns:
        more, turn_weights = encode_turn(tokenizer, turn, 1.0 if kept else FIRST_TURN_FACTOR)
        if len(ids) + len(more) > length:
            continue
        ids += more
        weights += turn_weights
        kept.append(turn)
        owners += [len(kept) if weight else 0 for weight in turn_weights]
    return Example(
        ids=ids,
        weights=weights,
        owners=owners,
        kinds=tuple(turn.kind for turn in kept),
        document=document,
        turns=tuple(kept),
        document_tokens=len(document_ids) + 1,
        depths=depths,
    )
