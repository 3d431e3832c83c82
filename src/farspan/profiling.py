"""Making a head profile: needles in generated text, asked for while we watch which heads look at them.

Two kinds of probe. *Retrieval* (Wu et al. 2024, as HeadKV uses it): a fact stands once in the text; a head scores when
its strongest look lands, inside the fact's value, on the very token that comes next. *Reasoning* (HeadKV-R2, Fu et al.
2024, section 3.1): beside the right value stands a wrong one, and only a further sentence says which is which; a head
scores the attention that its k strongest looks pay to the k tokens of the right value, over k and the answer's length.
The answer is fed as it should be (teacher-forced), so that a model too weak to give it still shows where it looks.
Layers with a window of their own are not scored: nothing is dropped there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from farspan.attention.scaling import scored
from farspan.errors import CapacityError, OptionError
from farspan.heads import BEYOND, SCORES, SPANS, HeadProfile
from farspan.runtime.entries import gather
from farspan.runtime.step import Row, Step
from farspan.text import Asked, tokenize

if TYPE_CHECKING:
    from farspan.context import Context
    from farspan.model import Model

LENGTH, TEXTS, FACTS = 1024, 8, 4
COVERED = 0.9  # of a query's attention: how many entries that takes is a head's spread
SINKS, LOCAL = 4, 16  # tokens that every pattern shows, and so no span is blamed for
DIGITS = 6  # decimals kept, so that files stay small

_ADJECTIVES = "amber brisk coral dusty early faded gentle hollow ivory jagged lunar mellow narrow olive plain".split()
_NOUNS = "anchor basket candle ditch engine feather garden hammer island jacket kettle ladder meadow needle".split()
_KINDS = ("special magic number", "serial number", "access code", "room number")
_PEOPLE = "Abena Boris Chiara Dmitri Elif Farouk Greta Hana Ibrahim Joana Kofi Leila Marek Nadia Oskar Priya".split()
_VERBS = "carried repaired painted counted borrowed described measured polished returned sorted".split()
_WHEN = ("before noon", "after the rain", "on the way home", "in the spring", "without a word", "for the second time")


@dataclass(frozen=True)
class _Fact:
    """A needle: the sentences that go into the text, and what is asked about them."""

    text: str
    question: str
    value: str


Hook = Callable[[int, int], None]


def make_profile(
    model: Model, *, length: int = LENGTH, texts: int = TEXTS, seed: int = 0, progress: Hook | None = None
) -> HeadProfile:
    """Score every key-value head of the model's full-attention layers -> a profile, to be saved.

    `texts` texts of about `length` tokens for each kind of probe, four questions about each, generated from `seed`;
    `progress(done, total)` is called after each text. Raises OptionError for numbers below 1, CapacityError where the
    model cannot read texts of that length.
    """
    for name, value in (("length", length), ("texts", texts)):
        if value < 1:
            raise OptionError(f"{name}={value} leaves nothing to probe; give 1 or more")
    if model.trained_length is not None and length > model.trained_length:
        raise CapacityError(
            f"length={length} is beyond the {model.trained_length} tokens that {model.path!r} was trained on; what its "
            "heads do there says nothing. Give less"
        )
    tables = {name: _Table(model) for name in (*SCORES, *BEYOND)}
    for done in range(2 * texts):
        kind = "retrieval" if done < texts else "reasoning"
        _probe(model, kind, tables, length, Random(f"{seed}/{kind}/{done}"))
        if progress is not None:
            progress(done + 1, 2 * texts)
    made = {"length": length, "texts": texts, "seed": seed, "questions": 2 * texts * FACTS, "covered": COVERED}
    return HeadProfile(
        model=model.path,
        fingerprint=dict(model.fingerprint),
        layers=tuple(i for i, layer in enumerate(model.layout.layers) if layer.window is None),
        scores={name: table.means() for name, table in tables.items()},
        made=made,
    )


class _Table:
    """Means per layer and head, as they come in."""

    def __init__(self, model: Model) -> None:
        full = [(i, layer.heads) for i, layer in enumerate(model.layout.layers) if layer.window is None]
        self._sums = {index: torch.zeros(heads, dtype=torch.float64) for index, heads in full}
        self._count = dict.fromkeys(self._sums, 0)

    def add(self, layer: int, scores: Tensor) -> None:
        """scores [Hk] of one question."""
        self._sums[layer] += scores.double().cpu()
        self._count[layer] += 1

    def means(self) -> tuple[tuple[float, ...], ...]:
        return tuple(
            tuple(round(value, DIGITS) for value in (total / max(1, self._count[layer])).tolist())
            for layer, total in self._sums.items()
        )


def _probe(model: Model, kind: str, tables: dict[str, _Table], length: int, random: Random) -> None:
    """Read one text and ask about each of its facts."""
    facts = [_retrieval(i, random) if kind == "retrieval" else _reasoning(i, random) for i in range(FACTS)]
    text = _text(model, facts, length, random)
    context = model.read(text)
    spans = torch.from_numpy(tokenize(text, model.tokenizer).spans)
    prefix = context.seen - len(spans)  # a template's opening stands before the text
    for fact in facts:
        start = text.index(fact.value)
        inside = (spans[:, 0] < start + len(fact.value)) & (spans[:, 1] > start)
        gold = inside.nonzero()[:, 0] + prefix
        for layer, looks, answer in _looks(context, fact):
            if kind == "retrieval":
                tables[kind].add(layer, _copied(looks, gold, context.token_ids, answer))
            else:
                tables[kind].add(layer, _paid(looks, gold))
            tables["spread"].add(layer, _spread(looks))
            for name, n in zip(BEYOND, (0, *SPANS), strict=True):
                tables[name].add(layer, _beyond(looks, n))


def _looks(context: Context, fact: _Fact) -> list[tuple[int, Tensor, Tensor]]:
    """-> per full-attention layer: its number, what the token before each of the answer's pays to every entry
    [Hk, G, n, N], and the answer's ids [n]."""
    model = context.model
    ids, count = model.prompts.scored(Asked(fact.question), fact.value, last=None, eos=model.eos)
    count = min(count, ids.numel() - 1)
    queries: dict[int, Tensor] = {}
    step = Step([Row(context.fork()._cache, ids.numel())], observer=lambda i, query, out: queries.update({i: query}))
    with torch.inference_mode():
        model.runtime(context.positions).forward(ids, step)
    rows = slice(ids.numel() - count - 1, ids.numel() - 1)
    at = torch.arange(context.next_position, context.next_position + ids.numel())[rows]
    found = []
    for cache in step.rows[0].cache.layers:
        if cache.window is None:
            cache.sealed = 0  # this fork is thrown away: all of its entries may be looked at
            (held,) = gather(cache)
            layer = model.layout.layers[cache.index]
            asked = queries[cache.index][:, rows].float().unflatten(0, (layer.heads, -1))
            scores = scored(torch.einsum("hgnd,hmd->hgnm", asked, held.keys.float()), layer.scaling)
            later = held.positions[:, None, None] > at.to(held.positions.device)[:, None]
            found.append((cache.index, scores.masked_fill(later, -torch.inf).softmax(-1), ids[rows.start + 1 :]))
    return found


def _copied(looks: Tensor, gold: Tensor, text: Tensor, answer: Tensor) -> Tensor:
    """-> [Hk]: the share of the answer's tokens whose strongest look lands in `gold` on the token itself."""
    strongest = looks.argmax(-1).cpu()  # [Hk, G, n]
    seen = text.cpu()[strongest.clamp(max=text.numel() - 1)]
    hits = torch.isin(strongest, gold) & (seen == answer.cpu())
    return hits.float().mean((1, 2))


def _paid(looks: Tensor, gold: Tensor) -> Tensor:
    """-> [Hk]: attention to those of the right value's tokens that are among as many strongest looks, over their
    number and the answer's length."""
    strongest = looks.topk(min(gold.numel(), looks.shape[-1]), dim=-1)
    right = torch.isin(strongest.indices.cpu(), gold)
    return (strongest.values.cpu() * right).sum(-1).mean((1, 2)) / gold.numel()


def _spread(looks: Tensor) -> Tensor:
    """-> [Hk]: the share of all entries, best first, that gather COVERED of a query's attention."""
    gathered = looks.sort(-1, descending=True).values.cumsum(-1)
    return ((gathered < COVERED).sum(-1) + 1).float().mean((1, 2)) / looks.shape[-1]


def _beyond(looks: Tensor, n: int) -> Tensor:
    """-> [Hk]: attention to what lies farther back than 1/n of all entries (than LOCAL of them for n = 0), without the
    first SINKS."""
    entries = looks.shape[-1]
    near = max(LOCAL, entries // n) if n else LOCAL
    return looks[..., SINKS : max(SINKS, entries - near)].sum(-1).mean((1, 2))


def _retrieval(number: int, random: Random) -> _Fact:
    kind, key, value = _KINDS[number % len(_KINDS)], _key(random), _value(random)
    return _Fact(f"The {kind} for {key} is {value}.", f"What is the {kind} for {key}?", value)


def _reasoning(number: int, random: Random) -> _Fact:
    """The right value, a wrong one, and which of the two is meant, in any order."""
    kind, right, wrong = _KINDS[number % len(_KINDS)], _key(random), _key(random)
    while wrong == right:
        wrong = _key(random)
    value, who = _value(random), _PEOPLE[(number * 4 + random.randrange(4)) % len(_PEOPLE)]
    sentences = [
        f"The {kind} for {right} is {value}.",
        f"The {kind} for {wrong} is {_value(random)}.",
        f"{who} needs the {kind} for {right}, not the one for {wrong}.",
    ]
    random.shuffle(sentences)
    return _Fact(" ".join(sentences), f"What is the {kind} that {who} needs?", value)


def _key(random: Random) -> str:
    return f"{random.choice(_ADJECTIVES)}-{random.choice(_NOUNS)}"


def _value(random: Random) -> str:
    return str(random.randrange(10**6, 10**7))


def _text(model: Any, facts: list[_Fact], length: int, random: Random) -> str:
    """Plain sentences of about `length` tokens in all, the facts spread evenly between them."""
    needles = len(tokenize(" ".join(fact.text for fact in facts), model.tokenizer))
    sentences: list[str] = []
    left = length - needles
    while left > 0:
        more = [_sentence(random) for _ in range(max(1, left // 16))]
        sentences += more
        left -= len(tokenize(" ".join(more), model.tokenizer))
    for i, fact in reversed(list(enumerate(facts))):
        sentences.insert(int((i + random.random()) / len(facts) * len(sentences)), fact.text)
    return " ".join(sentences)


def _sentence(random: Random) -> str:
    thing = f"the {random.choice(_ADJECTIVES)} {random.choice(_NOUNS)}"
    return f"{random.choice(_PEOPLE)} {random.choice(_VERBS)} {thing} {random.choice(_WHEN)}."


__all__ = ["make_profile"]
