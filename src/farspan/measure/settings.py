"""What a run evaluates: plans × tasks × lengths × modes, and how many samples of each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from farspan.errors import UsageError, did_you_mean
from farspan.measure.record import Mode
from farspan.measure.stopping import Stopping
from farspan.plan import Plan
from farspan.tasks._loaded import FromFiles
from farspan.tasks.base import Task
from farspan.tasks.catalogue import find, suites

MODES: dict[str, tuple[Mode, ...]] = {"agnostic": ("agnostic",), "aware": ("aware",), "both": ("agnostic", "aware")}
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*([kKmM]?)")
_SCALE = {"": 1, "k": 1024, "m": 1024 * 1024}


class Cell(NamedTuple):
    """A task at a length."""

    task: Task
    length: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples of a cell by number, whose contexts are answered together. Every plan and mode reads the same ones."""

    cell: Cell
    indices: tuple[int, ...]


class Column(NamedTuple):
    """What is compared: a plan in a mode."""

    plan: Plan
    mode: Mode


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides which samples a run has. `samples` counts contexts per cell; every question that a task
    asks of a context is one record.
    """

    plans: tuple[Plan, ...]
    tasks: tuple[Task, ...]
    lengths: tuple[int, ...]
    samples: int = 25
    modes: tuple[Mode, ...] = ("agnostic",)
    seed: int = 0
    until: float | None = None
    haystack: str | None = None
    truncate: bool = False
    """Whether contexts from files that are too long lose their middle, or are an error."""
    batch: int = 1
    """How many contexts are answered together."""
    skipped: tuple[tuple[str, int, int], ...] = ()
    """(task, length, what the task needs) of cells that were left out because the length is too small."""

    def __post_init__(self) -> None:
        """Raise UsageError for settings that say nothing or contradict themselves."""
        for what, given in (("plan", self.plans), ("task", self.tasks), ("length", self.lengths)):
            if not given:
                raise UsageError(f"there is no {what} to evaluate; give at least one")
            names = [str(each.hash if isinstance(each, Plan) else getattr(each, "id", each)) for each in given]
            twice = next((g for g, name in zip(given, names, strict=True) if names.count(name) > 1), None)
            if twice is not None:
                raise UsageError(f"the {what} {str(getattr(twice, 'id', twice))!r} is given twice; leave one out")
        if self.samples < 1:
            raise UsageError(f"--samples {self.samples} asks for nothing; give 1 or more")
        if self.batch < 1:
            raise UsageError(f"--batch {self.batch} answers nothing; give 1 or more")
        if self.until is not None:
            Stopping(self.until)

    @property
    def cells(self) -> list[Cell]:
        """By task and length, without those that are left out."""
        left_out = {(task, length) for task, length, _ in self.skipped}
        every = (Cell(task, length) for task in self.tasks for length in self.lengths)
        return [cell for cell in every if (cell.task.id, cell.length) not in left_out]

    @property
    def columns(self) -> list[Column]:
        """Plans in the order given, each in every mode."""
        return [Column(plan, mode) for plan in self.plans for mode in self.modes]

    def batches(self, cell: Cell) -> Iterator[Batch]:
        """The contexts of a cell: as many as asked for, or as there are, always batched alike."""
        size = cell.task.size()
        count = self.samples if size is None else min(self.samples, size)
        starts = range(0, count, self.batch)
        return (Batch(cell, tuple(range(start, min(start + self.batch, count)))) for start in starts)

    def to_json(self) -> dict[str, Any]:
        """For the manifest; `from_json` reads it back."""
        return {
            "plans": [{"text": str(plan), "hash": plan.hash, "plan": plan.to_json()} for plan in self.plans],
            "tasks": [task.describe() for task in self.tasks],
            "lengths": list(self.lengths),
            "samples": self.samples,
            "modes": list(self.modes),
            "seed": self.seed,
            "until": self.until,
            "haystack": self.haystack,
            "truncate": self.truncate,
            "batch": self.batch,
            "skipped": [list(each) for each in self.skipped],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, files: Path | None = None) -> Settings:
        """The settings of a manifest, with the tasks as they are now: compare `to_json` to see what has changed.

        `files` is the folder of tasks that are read from files: a manifest knows what was in them, not where they lie.
        """
        truncate = data.get("truncate", False)
        tasks = from_files([find(described["task"]) for described in data["tasks"]], files, truncate=truncate)
        return cls(
            plans=tuple(Plan.from_json(each["plan"]) for each in data["plans"]),
            tasks=tuple(in_haystack(tasks, data["haystack"])),
            lengths=tuple(data["lengths"]),
            samples=data["samples"],
            modes=tuple(data["modes"]),
            seed=data["seed"],
            until=data["until"],
            haystack=data["haystack"],
            truncate=truncate,
            batch=data.get("batch", 1),
            skipped=tuple((task, length, least) for task, length, least in data["skipped"]),
        )


def chosen_tasks(names: Sequence[str], suite_names: Sequence[str]) -> list[Task]:
    """Tasks by name and by suite, each once; raises UsageError with what is near."""
    by_suite = suites()
    for name in suite_names:
        if name not in by_suite:
            listed = ", ".join(by_suite) or "none"
            raise UsageError(f"there is no suite {name!r}.{did_you_mean(name, by_suite)} Suites: {listed}")
    found = [*(find(name) for name in names), *(task for name in suite_names for task in by_suite[name])]
    return list({task.id: task for task in found}.values())


def in_haystack(tasks: Sequence[Task], haystack: str | None) -> list[Task]:
    """The same tasks in another filling text; raises UsageError where none of them has one."""
    if haystack is None:
        return list(tasks)
    changed = [task.with_haystack(haystack) for task in tasks]
    if changed == list(tasks) and not any(getattr(task, "haystack", None) == haystack for task in tasks):
        raise UsageError(f"--haystack {haystack} changes nothing: none of these tasks has a filling text; leave it out")
    return changed


def from_files(tasks: Sequence[Task], data: Path | None, *, truncate: bool = False) -> list[Task]:
    """The same tasks with their files below `data`; raises UsageError where none of them is read from files."""
    changed = [task.at(data, truncate=truncate) if isinstance(task, FromFiles) else task for task in tasks]
    if (data is not None or truncate) and not any(isinstance(task, FromFiles) for task in tasks):
        option = f"--data {data}" if data is not None else "--truncate"
        raise UsageError(f"{option} changes nothing: none of these tasks is read from files; leave it out")
    return changed


def fitted(settings: Settings, *, named: Sequence[str] = ()) -> Settings:
    """Leave out the cells whose length is below what their task declares, and note them.

    Raises UsageError for a task in `named`, which somebody asked for by name, where nothing would be left, and for a
    task whose files are missing.
    """
    for task in settings.tasks:
        task.size()
    short = [(t.id, n, t.minimum) for t in settings.tasks for n in settings.lengths if n < t.minimum]
    by_name = [each for each in short if each[0] in named]
    if by_name or (short and len(short) == len(settings.tasks) * len(settings.lengths)):
        task, length, least = (by_name or short)[0]
        raise UsageError(
            f"{task} needs a length of at least {least} tokens, and {length} were asked for; "
            f"leave out the task or the length"
        )
    return replace(settings, skipped=tuple(short))


def parse_lengths(text: str) -> tuple[int, ...]:
    """`4k,16k` -> (4096, 16384); k and m are 1024 and 1024². Raises UsageError for anything else."""
    found = [_parse_length(part.strip()) for part in text.split(",") if part.strip()]
    if not found:
        raise UsageError("no length is given; write lengths in tokens, such as --lengths 4k,16k")
    return tuple(sorted(found))


def _parse_length(text: str) -> int:
    match = _LENGTH.fullmatch(text)
    number = float(match[1]) * _SCALE[match[2].lower()] if match else 0.0
    if not match or number < 1 or number != int(number):
        raise UsageError(f"{text!r} is no length in tokens; write 4096, 4k or 1m, several as 4k,16k")
    return int(number)


def parse_mode(text: str) -> tuple[Mode, ...]:
    """`agnostic`, `aware` or `both`; raises UsageError for another word."""
    if text not in MODES:
        raise UsageError(f"there is no mode {text!r}.{did_you_mean(text, MODES)} Modes: {', '.join(MODES)}")
    return MODES[text]
