"""Speed and memory of plans, beside the same model under plain transformers, measured in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from farspan.errors import OptionError
from farspan.measure import machine
from farspan.measure.counter import ModelCounter
from farspan.model import Model
from farspan.plan import Plan
from farspan.runtime.hf_plain import Plain, endless
from farspan.tasks import _haystack
from farspan.tasks._stretch import LONGEST_TOKEN, cut
from farspan.text import Asked

TOKENS, ANSWER, REPEATS = 4096, 64, 3
QUESTION = "Which of these functions is called first, and why?"
PEER = "transformers"

Hook = Callable[[int, int], None]
"""Called with (measurements done, measurements in all)."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Medians of one way to read and to answer. Bytes are of keys and values, with all that belongs to them."""

    name: str
    read_seconds: float
    first_token_seconds: float
    """From the question to the first token of the answer."""
    token_seconds: float
    """Of each token after that."""
    held_bytes: int
    peak_bytes: int
    """While reading."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What was measured; `peer` is plain transformers with its DynamicCache."""

    tokens: int
    """Read."""
    answer: int
    """Tokens of each answer."""
    repeats: int
    peer: Speed
    plans: tuple[Speed, ...]
    same_answer: bool
    """Whether the plan that drops and quantises nothing, where it was measured, answered as the peer did."""
    environment: dict[str, Any]


def bench(
    model: Model,
    plans: Sequence[str | Plan],
    *,
    tokens: int = TOKENS,
    answer: int = ANSWER,
    repeats: int = REPEATS,
    progress: Hook | None = None,
) -> Bench:
    """Read `tokens` tokens of real text and answer in `answer` tokens, under each plan and under plain transformers.

    All are measured in turn, `repeats` times and once more that does not count, so that whatever else the machine does
    meets all alike. Raises OptionError for numbers that measure nothing, and whatever reading raises.
    """
    for name, value, least in (("length", tokens, 16), ("tokens", answer, 2), ("repeats", repeats, 1)):
        if value < least:
            raise OptionError(f"{name}={value} measures nothing; give {least} or more")
    settled = [Plan.parse(plan) for plan in plans]
    for plan in settled:
        model.check(plan)
    text = code(model, tokens)
    peer = _Peer(model, text, answer)
    runs: list[tuple[str, Callable[[], _Times]]] = [(PEER, peer.run)]
    runs += [(str(plan), _Ours(model, plan, text, answer).run) for plan in settled]
    times: dict[str, list[_Times]] = {name: [] for name, _ in runs}
    for done, (name, run) in enumerate(_turns(runs, repeats + 1)):
        times[name].append(run())
        if progress is not None:
            progress(done + 1, len(runs) * (repeats + 1))
    speeds = {name: _speed(name, each[1:]) for name, each in times.items()}
    full = times.get("full")
    return Bench(
        tokens=peer.ids.numel(),
        answer=answer,
        repeats=repeats,
        peer=speeds.pop(PEER),
        plans=tuple(speeds.values()),
        same_answer=full is None or full[-1].tokens == times[PEER][-1].tokens,
        environment={
            **machine.described(),
            "device": str(model.hf.device),
            "dtype": str(model.hf.dtype).removeprefix("torch."),
        },
    )


def _turns(runs: Sequence[tuple[str, Callable[[], _Times]]], rounds: int) -> Iterator[tuple[str, Callable[[], _Times]]]:
    for _ in range(rounds):
        yield from runs


@dataclass(frozen=True)
class _Times:
    read: float
    first: float
    total: float
    tokens: tuple[int, ...]
    held: int
    peak: int


class _Peer:
    """Plain transformers on the tokens that we read."""

    def __init__(self, model: Model, text: str, answer: int) -> None:
        context = model.read(text)
        self.plain, self.answer = Plain(model.runtime(context.positions).prepared), answer
        self.ids, self.bytes = context.token_ids.long(), context.full_bytes
        self.question = model.prompts.question(QUESTION, last=None, eos=model.eos)

    def run(self) -> _Times:
        cache, read = self.plain.read(self.ids)
        took = self.plain.ask(cache, self.ids, self.question, self.answer)
        return _Times(read, took.first, took.total, took.tokens, self.bytes, self.bytes)


class _Ours:
    """A plan."""

    def __init__(self, model: Model, plan: Plan, text: str, answer: int) -> None:
        self.model, self.plan, self.text, self.answer = model, plan, text, answer

    def run(self) -> _Times:
        context = self.model.read(self.text, self.plan)
        answer = context.ask(Asked(QUESTION), generation_config=endless(self.answer))
        times, cost = answer.timings, context.cost
        return _Times(
            cost.seconds, times.first_token, times.total, answer.token_ids, context.held_bytes, cost.peak_bytes
        )


def _where(model: Model) -> dict[str, Any]:
    dtype = str(model.hf.dtype).removeprefix("torch.")
    return {"device": str(model.hf.device), "dtype": dtype, "threads": torch.get_num_threads()}


def code(model: Model, tokens: int) -> str:
    """Source code of the standard library that makes `tokens` tokens, or just fewer."""
    whole = _haystack.load("code").text
    rounds = 1 + tokens * LONGEST_TOKEN // len(whole)
    return cut(whole * rounds, tokens, ModelCounter(model))


def _speed(name: str, times: Sequence[_Times]) -> Speed:
    return Speed(
        name=name,
        read_seconds=median(each.read for each in times),
        first_token_seconds=median(each.first for each in times),
        token_seconds=median((each.total - each.first) / max(1, len(each.tokens) - 1) for each in times),
        held_bytes=times[-1].held,
        peak_bytes=times[-1].peak,
    )
