"""What a run would take, before it is begun: tokens, bytes and seconds per cell, and what will not fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from farspan.errors import FarspanError
from farspan.measure import machine
from farspan.measure.counter import asked_of
from farspan.measure.local import BATCH, LocalModel, by_probe, reads_alike
from farspan.measure.outcome import Subject, message_of
from farspan.measure.settings import Cell, Column, Settings
from farspan.plan import Plan
from farspan.tasks.base import Passage, seeded

SHORT, LONG = 256, 1024  # tokens of the two reads that a plan is timed with
STEPS = 8  # tokens of the answers that decoding is timed with


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One cell under one plan and mode. None means that it cannot be known here, as with an endpoint."""

    cell: Cell
    column: Column
    contexts: int
    questions: int
    """Of one context."""
    tokens: int
    """Of the longest prompt."""
    peak_bytes: int | None = None
    """The bound that reading keeps to."""
    held_bytes: int | None = None
    seconds: float | None = None
    """Of the whole cell, at the speed measured now, were every reply as long as it may be."""
    trouble: str | None = None
    """Why it will not fit."""


@dataclass(frozen=True)
class Speed:
    """Seconds that reading T tokens takes, `linear`·T + `square`·T², and one step of decoding a batch."""

    linear: float
    square: float
    step: float

    def read(self, tokens: int) -> float:
        """Seconds for a context of `tokens`."""
        return self.linear * tokens + self.square * tokens * tokens


def estimated(settings: Settings, subject: Subject) -> Iterator[Estimate]:
    """One estimate per cell and column. The first sample of each cell is made; plans are timed on the shortest one."""
    passages = [(cell, _first(settings, subject, cell)) for cell in settings.cells]
    made = [passage for _, passage in passages if isinstance(passage, Passage)]
    speeds: dict[Plan, Speed | None] = {}
    if isinstance(subject, LocalModel) and made:
        shortest = min(made, key=lambda passage: len(passage.context))
        speeds = {plan: _timed(subject, plan, shortest, settings.batch) for plan in settings.plans}
    for cell, passage in passages:
        for column in settings.columns:
            yield _estimate(settings, subject, cell, passage, column, speeds.get(column.plan))


def _first(settings: Settings, subject: Subject, cell: Cell) -> Passage | str:
    """The first sample of a cell, or why it cannot be made."""
    random = seeded(cell.task, length=cell.length, seed=settings.seed, index=0)
    try:
        return cell.task.generate(0, length=cell.length, counter=subject.counter, random=random)
    except FarspanError as error:
        return message_of(error)


def _estimate(
    settings: Settings, subject: Subject, cell: Cell, passage: Passage | str, column: Column, speed: Speed | None
) -> Estimate:
    contexts = sum(len(batch.indices) for batch in settings.batches(cell))
    if isinstance(passage, str):
        return Estimate(cell=cell, column=column, contexts=contexts, questions=0, tokens=0, trouble=passage)
    tokens = max(subject.counter.prompt(passage.context, question) for question in passage.questions)
    known = Estimate(cell=cell, column=column, contexts=contexts, questions=len(passage.questions), tokens=tokens)
    return _foreseen(known, subject, passage, speed, settings.batch) if isinstance(subject, LocalModel) else known


def _foreseen(known: Estimate, subject: LocalModel, passage: Passage, speed: Speed | None, batch: int) -> Estimate:
    """Add what a local model can say: bytes, seconds, and whether it fits."""
    plan, aware = known.column.plan, known.column.mode == "aware" and not reads_alike(known.column.plan)
    model, read = subject.model, subject.counter.text(passage.context) + int(subject.model.prompts.prefix().numel())
    try:
        foreseen = model.foresee(read, plan, probe=known.tokens - read if aware else 0)
    except FarspanError as error:
        return replace(known, trouble=message_of(error))
    seconds = None
    if speed is not None:
        asked = [its for _, its in by_probe(passage.questions)] if aware else [range(len(passage.questions))]
        decoded = sum(max(passage.questions[number].max_new_tokens for number in numbers) for numbers in asked)
        turns = -(-known.contexts // batch)
        seconds = known.contexts * len(asked) * speed.read(foreseen.tokens) + turns * decoded * speed.step
    waiting = (min(batch, known.contexts) - 1) * foreseen.held_bytes
    return replace(
        known,
        peak_bytes=foreseen.peak_bytes,
        held_bytes=foreseen.held_bytes,
        seconds=seconds,
        trouble=_too_big(foreseen.peak_bytes + waiting, str(model.hf.device)),
    )


def _too_big(peak_bytes: int, device: str) -> str | None:
    """Whether this much KV has room; weights are loaded already, activations come on top."""
    free = _free_bytes(device)
    if free is None or peak_bytes <= free:
        return None
    return f"reading takes up to {peak_bytes:,} bytes of KV, and {free:,} bytes are free on {device}"


def _free_bytes(device: str) -> int | None:
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    return machine.available_bytes() if device == "cpu" else None


def _timed(subject: LocalModel, plan: Plan, passage: Passage, batch: int) -> Speed | None:
    """Read a short and a longer piece of a passage, ask its questions as often as are asked together, and draw the
    curve through both.
    """
    text, whole = passage.context, subject.counter.text(passage.context)
    asked = [asked_of(question) for question in passage.questions if question.kind != "likelihood"]
    asked = (asked * batch)[: max(len(asked), BATCH)]
    seconds: list[tuple[int, float]] = []
    try:
        for tokens in (SHORT, SHORT, LONG):  # the first warms up
            piece = (text * (1 + LONG // max(1, whole)))[: max(1, round(len(text) * tokens / whole))]
            context = subject.model.read(piece, plan)
            seconds.append((context.cost.tokens, context.cost.seconds))
        answers = context.ask(asked, max_new_tokens=STEPS) if asked else []
    except FarspanError:
        return None  # what does not fit even so says so in its own estimate
    took = [a.timings.total / len(a.token_ids) for a in answers]
    return _curve(seconds[1:], max(took, default=0.0))


def _curve(points: Sequence[tuple[int, float]], step: float) -> Speed:
    (a, at_a), (b, at_b) = points
    square = max(0.0, (at_b / b - at_a / a) / (b - a)) if b > a else 0.0
    return Speed(at_b / b - square * b, square, step)
