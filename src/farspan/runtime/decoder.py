"""Asking: a packed batch of questions, each on its own fork, decoded together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from farspan.cache import SequenceCache
from farspan.runtime.answering import Answering
from farspan.runtime.fetching import Fetching
from farspan.runtime.layout import ModelLayout
from farspan.runtime.packing import Packing
from farspan.runtime.step import Row, Step

FinishReason = Literal["stop", "length"]


class Body(Protocol):
    """What decoding needs of a model."""

    def forward(self, ids: Tensor, step: Step) -> Tensor:
        """ids [ΣT] -> hidden [ΣT, hidden]."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [n, hidden] -> [n, V]."""
        ...


class Chooser(Protocol):
    """How the next token is chosen, and when an answer is over."""

    @property
    def eos(self) -> frozenset[int]:
        """Tokens that end an answer."""
        ...

    def generator(self) -> torch.Generator:
        """Fresh randomness for one answer."""
        ...

    def choose(self, logits: Tensor, context_ids: Callable[[], Tensor], generator: torch.Generator) -> int:
        """logits [V] -> the next token; `context_ids()` gives the tokens so far [n]."""
        ...


@dataclass
class Turn:
    """One question on its way: `cache` is a fork that this turn may change, `ids` [T] the question's tokens."""

    cache: SequenceCache
    ids: Tensor
    packer: Packing | None
    limit: int
    ended: Callable[[list[int]], bool] = lambda tokens: False
    """Called after each token with all of them: True where a stop string is complete."""
    answering: Answering | None = None
    """What holds new tokens to a budget, where the plan has one for them."""
    fetching: Fetching | None = None
    """What chooses the entries that are read, where the plan fetches."""
    tokens: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    first_seconds: float = 0.0
    seconds: float = 0.0

    def row(self, length: int) -> Row:
        """This turn's share of a packed batch."""
        return Row(self.cache, length, packer=self.packer, answering=self.answering, fetching=self.fetching)

    def finish(self, layout: ModelLayout) -> None:
        """The turn is over: windows hold what later queries see, and the last queries have been reckoned with."""
        for layer in self.cache.layers:
            if layer.window is not None:
                layer.trim_window()  # decoding lets a few tokens more stand between copies
        if self.answering is not None:
            self.answering.finish(self.cache, {i: layer.scaling for i, layer in enumerate(layout.layers)})
        if self.fetching is not None:
            self.fetching.finish(self.cache)


def decode(body: Body, turns: Sequence[Turn], chooser: Chooser) -> Iterator[list[tuple[int, int]]]:
    """Prefill all questions packed, then decode them together; those that end drop out.

    Yields after every forward pass what was chosen: (turn, token) pairs. The last token of an answer is chosen but
    not fed: the next turn feeds it. Closing the iterator early leaves the caches at the last pass.
    """
    began = time.perf_counter()
    generators = [chooser.generator() for _ in turns]
    live = list(range(len(turns)))
    feeds = [turn.ids for turn in turns]
    step: Step | None = None
    while live:
        step = _step(step, [turns[i] for i in live], feeds)
        logits = _forward(body, step, feeds)
        chosen: list[tuple[int, int]] = []
        for i, row in zip(live, logits.unbind(0), strict=True):
            turn = turns[i]
            token = chooser.choose(row, turn.cache.ids, generators[i])
            turn.tokens.append(token)
            chosen.append((i, token))
            _account(turn, token, chooser, time.perf_counter() - began)
        yield chosen
        live = [i for i in live if turns[i].finish_reason is None]
        feeds = [torch.tensor(turns[i].tokens[-1:]) for i in live]


def _step(last: Step | None, turns: list[Turn], feeds: list[Tensor]) -> Step:
    """The next pass: the last one once more, where it was of the same turns with as many tokens each, because that
    knows what attention was told of them.
    """
    wanted = [(turn, ids.numel()) for turn, ids in zip(turns, feeds, strict=True)]
    if last is not None and last.repeats([(turn.cache, tokens) for turn, tokens in wanted]):
        return last
    return Step([turn.row(tokens) for turn, tokens in wanted])


def _forward(body: Body, step: Step, feeds: list[Tensor]) -> Tensor:
    """Feed each turn its new tokens -> logits [turns, V] after the last of each."""
    with torch.inference_mode():
        hidden = body.forward(feeds[0] if len(feeds) == 1 else torch.cat(feeds), step)
        step.feed(feeds)
        if len(feeds) > 1:
            ends = torch.tensor([ids.numel() for ids in feeds]).cumsum(0) - 1
            return body.logits(hidden[ends.to(hidden.device)])
        return body.logits(hidden[-1:])


def _account(turn: Turn, token: int, chooser: Chooser, elapsed: float) -> None:
    turn.seconds = elapsed
    if len(turn.tokens) == 1:
        turn.first_seconds = elapsed
    if token in chooser.eos or turn.ended(turn.tokens):
        turn.finish_reason = "stop"
    elif len(turn.tokens) >= turn.limit:
        turn.finish_reason = "length"
