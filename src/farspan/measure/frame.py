"""Run directories read back: samples by task, length and column; a column is a plan in a mode of a run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from farspan.errors import DamagedFile, UsageError, did_you_mean
from farspan.measure.record import Mode, Record
from farspan.plan import DEFAULT, Plan

MANIFEST, SAMPLES = "run.json", "samples.jsonl"


class Column(NamedTuple):
    """What a report compares: one plan, read in one mode, in one run."""

    run: str
    plan: str
    plan_hash: str
    mode: Mode

    @property
    def is_full(self) -> bool:
        """Whether it drops and quantises nothing: what the others are measured against."""
        return self.plan == DEFAULT


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run directory. `notes` say what about its files was not as it should be."""

    name: str
    path: Path
    manifest: Mapping[str, Any]
    records: tuple[Record, ...]
    repeated: int = 0
    """Samples that stood more than once; the first good one counts."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Samples of one run or several, ready to be compared."""

    runs: tuple[Run, ...]

    @cached_property
    def groups(self) -> dict[Column, dict[tuple[str, int], list[Record]]]:
        """Column -> (task, length) -> samples, errors among them, in a fixed order."""
        found: dict[Column, dict[tuple[str, int], list[Record]]] = {}
        for run in self.runs:
            for record in sorted(run.records, key=_place):
                column = Column(run.name, record.plan, record.plan_hash, record.mode)
                cells = found.setdefault(column, {})
                cells.setdefault((self.task(record), record.length), []).append(record)
        return dict(sorted(found.items(), key=lambda item: (not item[0].is_full, self._order[item[0]])))

    @cached_property
    def _order(self) -> dict[Column, int]:
        """Columns in the order in which runs and samples name them."""
        named = (Column(run.name, r.plan, r.plan_hash, r.mode) for run in self.runs for r in run.records)
        return {column: place for place, column in enumerate(dict.fromkeys(named))}

    @property
    def columns(self) -> list[Column]:
        """The full cache first, the rest as the runs have them."""
        return list(self.groups)

    @cached_property
    def tasks(self) -> list[str]:
        """By name."""
        return sorted({task for cells in self.groups.values() for task, _ in cells})

    @cached_property
    def lengths(self) -> list[int]:
        """Asked for, in tokens, ascending."""
        return sorted({length for cells in self.groups.values() for _, length in cells})

    @cached_property
    def _versions(self) -> Counter[str]:
        pairs = {(record.task, record.version) for run in self.runs for record in run.records}
        return Counter(task for task, _ in pairs)

    def task(self, record: Record) -> str:
        """The task's name, with its version where two versions met: they are never mixed."""
        return f"{record.task} (version {record.version})" if self._versions[record.task] > 1 else record.task

    def label(self, column: Column) -> str:
        """The plan, and of mode and run what tells it from the others."""
        label = column.plan
        if len({(c.run, c.plan, c.mode) for c in self._order}) < len(self._order):
            label += f" #{column.plan_hash[:4]}"
        if len({c.mode for c in self._order}) > 1:
            label += f" · {column.mode}"
        if any(
            c != column and (c.plan, c.mode) == (column.plan, column.mode) for c in self._order if c.run != column.run
        ):
            label += f" · {column.run}"
        return label

    def reference(self, column: Column) -> Column | None:
        """The full cache that a column is measured against: of its run and mode, or else of its run, or else any."""
        full = [c for c in self.columns if c.is_full]
        full.sort(key=lambda c: (c.run != column.run, c.mode != column.mode))
        return full[0] if full else None

    def side(self, name: str) -> list[Column]:
        """The columns that a person means by a label, a plan or a run; raises UsageError for none, or several plans."""
        columns = self.columns
        names = {c: (self.label(c), c.plan) for c in columns}
        found = [c for c in columns if self.label(c) == name] or [
            c for c in columns if c.plan in (name, _written(name))
        ]
        if len(found) > 1:
            raise UsageError(f"{name!r} is in several columns; name one of: {_listed(self.label(c) for c in found)}")
        found = found or [c for c in columns if c.run == name or _same(self.runs, c.run, name)]
        if not found:
            known = [*dict.fromkeys(n for pair in names.values() for n in pair), *(r.name for r in self.runs)]
            raise UsageError(f"nothing here is named {name!r}.{did_you_mean(name, known)} There are: {_listed(known)}")
        return found


def load(paths: Sequence[str | Path]) -> Frame:
    """Read run directories; raises UsageError for what is none, DamagedFile for damage beyond a torn last line."""
    if not paths:
        raise UsageError("no run given; name the folder that farspan eval wrote")
    folders = [Path(path) for path in paths]
    real = [folder.resolve() for folder in folders]
    if len(set(real)) < len(real):
        twice = next(str(f) for f, r in zip(folders, real, strict=True) if real.count(r) > 1)
        raise UsageError(f"the run {twice} was given more than once; give each run once")
    names = _names(real)
    return Frame(runs=tuple(_load(folder, name) for folder, name in zip(folders, names, strict=True)))


def _load(folder: Path, name: str) -> Run:
    samples = folder / SAMPLES
    if not samples.is_file():
        what = "does not exist" if not folder.exists() else f"holds no {SAMPLES}"
        raise UsageError(f"{folder} is no run: it {what}; give a folder that farspan eval wrote")
    records, notes = _records(samples)
    if not records:
        raise UsageError(f"{folder} holds no samples yet; let farspan eval write some first")
    manifest, more = _manifest(folder / MANIFEST)
    kept = _once(records)
    seen = sum(record.status == "ok" for record in records) - sum(record.status == "ok" for record in kept)
    return Run(name=name, path=folder, manifest=manifest, records=kept, repeated=seen, notes=(*notes, *more))


def _records(file: Path) -> tuple[list[Record], list[str]]:
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}") from error
    last = max((number for number, line in enumerate(lines) if line.strip()), default=-1)
    records, notes = [], []
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            records.append(Record.from_line(line.decode("utf-8")))
        except (DamagedFile, UnicodeDecodeError) as error:
            if number < last:
                raise DamagedFile(f"{file}, line {number + 1}: {error}") from error
            notes.append(
                f"the last line of {SAMPLES} is incomplete and was left out: the run was stopped while writing"
            )
    return records, notes


def _manifest(file: Path) -> tuple[dict[str, Any], list[str]]:
    if not file.is_file():
        return {}, [f"there is no {MANIFEST}: what was run, and on what, is not known"]
    try:
        loaded = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedFile(f"{file} is no manifest of a run: {error}") from error
    if not isinstance(loaded, dict):
        raise DamagedFile(f"{file} is no manifest of a run: it holds a {type(loaded).__name__}")
    return loaded, []


def _once(records: Iterable[Record]) -> tuple[Record, ...]:
    """Each sample once under each plan: the first good answer, or else the last error (it was tried again)."""
    kept: dict[tuple[str, str, Mode], Record] = {}
    for record in records:
        key = (record.id, record.plan_hash, record.mode)
        if key not in kept or kept[key].status == "error":
            kept[key] = record
    return tuple(kept.values())


def _names(folders: Sequence[Path]) -> list[str]:
    """The shortest tails of the paths that differ."""
    for parts in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-parts:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def _place(record: Record) -> tuple[str, int, int, int, str]:
    return record.task, record.length, record.index, record.question, record.id


def _same(runs: Iterable[Run], run: str, path: str) -> bool:
    return any(r.name == run and r.path.resolve() == Path(path).resolve() for r in runs)


def _written(name: str) -> str:
    """A plan as samples name it, whichever way somebody wrote it."""
    try:
        return str(Plan.parse(name))
    except UsageError:
        return name


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
