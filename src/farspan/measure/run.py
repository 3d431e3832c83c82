"""A run: every sample of its settings once, in a folder that any interruption leaves resumable."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from farspan.errors import UsageError
from farspan.measure import manifest as manifests
from farspan.measure.execute import evaluate
from farspan.measure.journal import Journal
from farspan.measure.outcome import Subject
from farspan.measure.record import Mode, Record, Status
from farspan.measure.settings import Batch, Cell, Column, Settings
from farspan.measure.stopping import Stopping

Key = tuple[str, str, Mode]


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """Where a run stands. `done` and `total` are tokens of contexts, read once per plan and mode; `samples` are records
    written by now, in this process and before.
    """

    done: int
    total: int
    samples: int
    errors: int
    seconds: float
    left_seconds: float | None
    """At the pace so far, of each task by itself; None before anything was done."""
    cell: Cell | None = None


Hook = Callable[[RunProgress], None]


class Fan(Protocol):
    """How batches are evaluated: here, one after the other, or elsewhere, many at once."""

    def __call__(
        self, queues: Mapping[Cell, Iterator[Batch]], columns_of: Callable[[Batch], list[Column]]
    ) -> Iterator[tuple[Batch, list[Record]]]:
        """-> (batch, the records of one of its columns), in any order; the next batch of a cell is drawn only when
        all records of those drawn before have been taken, where that matters to the iterator.
        """
        ...


@dataclass
class Tally:
    """What is there already: which samples, and the scores that stopping looks at."""

    keys: dict[Key, Status] = field(default_factory=dict)
    asked: dict[tuple[str, int, int, str, Mode], tuple[int, int]] = field(default_factory=dict)
    """(task, length, index, plan, mode) -> (questions there are, questions answered)."""
    scores: dict[tuple[str, int], dict[tuple[str, Mode], list[tuple[float, int]]]] = field(default_factory=dict)
    errors: int = 0
    read: Counter[str] = field(default_factory=Counter)
    """Of each task, the tokens of all contexts that are complete, per plan and mode."""

    def add(self, record: Record) -> bool:
        """Count a record -> False where it was there already. An answer takes the place of an error."""
        key = (record.id, record.plan_hash, record.mode)
        before = self.keys.get(key)
        if before == "ok" or before == record.status:
            return False
        self.keys[key] = record.status
        self.errors += (record.status == "error") - (before == "error")
        if record.official is not None:
            column = self.scores.setdefault((record.task, record.length), {})
            column.setdefault((record.plan_hash, record.mode), []).append((record.official, record.index))
        if before is not None:
            return True
        of = (record.task, record.length, record.index, record.plan_hash, record.mode)
        answered = self.asked.get(of, (0, 0))[1] + 1
        self.asked[of] = (record.questions, answered)
        self.read[record.task] += record.length if answered == record.questions else 0
        return True

    def complete(self, batch: Batch, column: Column) -> bool:
        """Whether every question of a batch has its record."""
        task, length = batch.cell
        for index in batch.indices:
            there, answered = self.asked.get((task.id, length, index, column.plan.hash, column.mode), (1, 0))
            if answered < there:
                return False
        return True


def run(
    settings: Settings,
    subject: Subject,
    path: str | os.PathLike[str],
    *,
    progress: Hook | None = None,
    fan: Fan | None = None,
    retry_errors: bool = False,
    elsewhere: Sequence[Mapping[str, Any]] = (),
) -> Tally:
    """Evaluate what is not yet in the folder `path`, and append it there.

    A folder that holds a run with the same settings is taken up where it was left; `retry_errors` asks again what
    ended in an error; `elsewhere` are the environments of other processes that `fan` uses. Raises UsageError where its
    settings differ, or where another process writes it.
    """
    subject.check(settings.plans)
    with Journal(path) as journal:
        begin(journal, settings, subject, elsewhere)
        tally = Tally()
        for record in journal.recover():
            if not (retry_errors and record.status == "error"):
                tally.add(record)
        queues = {cell: _pending(settings, cell, tally) for cell in settings.cells}
        meter = _Meter(settings, tally, progress)
        meter.tell(None)

        def missing(batch: Batch) -> list[Column]:
            return [column for column in settings.columns if not tally.complete(batch, column)]

        for batch, records in (fan or Here(subject, settings.seed))(queues, missing):
            journal.append([record for record in records if tally.add(record)])
            meter.tell(batch)
        return tally


def begin(
    journal: Journal, settings: Settings, subject: Subject, elsewhere: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Write the manifest of a new run, or check that an old one has these settings -> the manifest."""
    new, old = manifests.written(settings, subject), journal.manifest
    if old is None:
        if next(journal.recover(), None) is not None:
            raise UsageError(
                f"{journal.path} holds samples and no manifest that says what they are; name another folder"
            )
    else:
        manifests.check_same(old, new)
    told = old or {**new, "environments": []}
    unknown = [where for where in elsewhere or new["environments"] if where not in told["environments"]]
    if unknown or old is None:
        told["environments"] += unknown
        journal.write_manifest(told)
    return told


def _pending(settings: Settings, cell: Cell, tally: Tally) -> Iterator[Batch]:
    """The batches of a cell that are not complete, until its intervals are narrow enough.

    Whether to stop before sample i is decided by samples 0..i-1 alone: a run that was interrupted, or is made by many
    processes, stops where one process would have.
    """
    stopping = Stopping(settings.until) if settings.until is not None else None
    for batch in settings.batches(cell):
        if stopping is not None:
            scores = tally.scores.get((cell.task.id, cell.length), {})
            before = [[s for s in its if s[1] < batch.indices[0]] for its in scores.values()]
            if len(before) == len(settings.columns) and stopping.enough(before):
                return
        if not all(tally.complete(batch, column) for column in settings.columns):
            yield batch


class Here:
    """Evaluate in this process, one batch after the other."""

    def __init__(self, subject: Subject, seed: int) -> None:
        self.subject, self.seed = subject, seed

    def __call__(
        self, queues: Mapping[Cell, Iterator[Batch]], columns_of: Callable[[Batch], list[Column]]
    ) -> Iterator[tuple[Batch, list[Record]]]:
        """See Fan."""
        for batches in queues.values():
            for batch in batches:
                for records in evaluate(self.subject, batch, columns_of(batch), self.seed):
                    yield batch, records


class _Meter:
    """How far a run is: work is counted in tokens of contexts that are read, once per plan and mode, and time by task,
    because one that wants long replies takes many times as long.
    """

    def __init__(self, settings: Settings, tally: Tally, hook: Hook | None) -> None:
        self.tally, self.hook = tally, hook
        self.before, self.spent = Counter(tally.read), dict[str, float]()
        self.began = self.last = time.perf_counter()
        self.total = Counter[str]()
        for cell in settings.cells:
            contexts = sum(len(batch.indices) for batch in settings.batches(cell))
            self.total[cell.task.id] += cell.length * contexts * len(settings.columns)

    def tell(self, batch: Batch | None) -> None:
        """Something was written, or the run begins."""
        now = time.perf_counter()
        if batch is not None:
            task = batch.cell.task.id
            self.spent[task] = self.spent.get(task, 0.0) + now - self.last
        self.last = now
        if self.hook is None:
            return
        self.hook(
            RunProgress(
                done=self.tally.read.total(),
                total=self.total.total(),
                samples=len(self.tally.keys),
                errors=self.tally.errors,
                seconds=now - self.began,
                left_seconds=self._left(),
                cell=batch.cell if batch else None,
            )
        )

    def _left(self) -> float | None:
        """Seconds still to go: each task at its own pace, those not yet begun at the pace of all."""
        done = self.tally.read - self.before
        if not done:
            return None
        overall = sum(self.spent.values()) / done.total()
        left = self.total - self.tally.read
        return sum(n * (self.spent.get(task, 0.0) / done[task] if done[task] else overall) for task, n in left.items())
