"""Replays of published predictions: our scorers must give the published figures on the files behind them.

Nothing of those files is kept here, only their hashes and the figures (`published.tsv`).
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from statistics import fmean
from typing import Literal

from farspan.errors import DamagedFile, UsageError
from farspan.measure.aggregate import (
    RULER_THRESHOLD,
    effective_length,
    weighted_decreasing,
    weighted_increasing,
)
from farspan.tasks.infinitebench_files import TABLE, references_of
from farspan.tasks.longchat import read_number

Status = Literal["equal", "differs", "missing"]

REPOSITORIES = {
    "infinitebench": ("InfiniteBench", "the repository OpenBMB/InfiniteBench on GitHub (its folder results)"),
    "longchat-lines": (
        "LongChat",
        "the repository DachengLi1/LongChat on GitHub (its folder longeval/evaluation/lines/predictions)",
    ),
    "ruler": ("RULER", "the repository NVIDIA/RULER on GitHub (its README.md)"),
}
"""Suite -> the folder's usual name, and what to get."""

_MARKS = {"infinitebench": "results", "longchat-lines": "longeval/evaluation/lines/predictions", "ruler": "README.md"}
_LENGTHS = (4, 8, 16, 32, 64, 128)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One published figure beside ours; per cent, or a length in thousands of tokens as the source prints it."""

    suite: str
    model: str
    task: str
    published: str
    ours: str | None
    status: Status
    samples: int = 0
    known_file: bool | None = None
    """Whether the file is byte for byte the one whose hash we have; None where there is no file or no hash."""
    note: str = ""

    @property
    def difference(self) -> float | None:
        """Ours minus published, where both are numbers."""
        try:
            return round(float(self.ours or ""), 2) - float(self.published)
        except ValueError:
            return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """A published file: its hash, the figure printed for it, and what its rule gives on it."""

    suite: str
    model: str
    task: str
    file: str
    sha256: str
    published: str
    ours: str
    note: str


@cache
def known() -> tuple[Known, ...]:
    """Every file whose figure is known, in the order of the published tables."""
    text = resources.files("farspan.measure").joinpath("published.tsv").read_text(encoding="utf-8")
    return tuple(Known(**row) for row in csv.DictReader(text.splitlines(), delimiter="\t"))


def find(folders: list[Path]) -> dict[str, Path]:
    """Suite -> its checkout among `folders`, or in a folder of its usual name inside them.

    Raises UsageError that says what to get where no suite is found at all.
    """
    found: dict[str, Path] = {}
    for suite, (name, _) in REPOSITORIES.items():
        for place in (place for folder in folders for place in (folder, folder / name)):
            if suite not in found and _is(suite, place):
                found[suite] = place
    if not found:
        wanted = "; ".join(what for _, what in REPOSITORIES.values())
        given = ", ".join(map(repr, map(str, folders)))
        where = f" in {given}" if given else ": no folder is given"
        raise UsageError(f"there are no published predictions{where}. Get one of these, and give its folder: {wanted}")
    return found


def _is(suite: str, place: Path) -> bool:
    mark = place / _MARKS[suite]
    if suite == "ruler":
        return mark.is_file() and "Effective Length" in mark.read_text(encoding="utf-8", errors="replace")
    files = [each.file for each in known() if each.suite == suite]
    return mark.is_dir() and any((place / file).is_file() for file in files)


def replay(suite: str, place: Path) -> Iterator[Cell]:
    """Every published figure of a suite beside ours, computed from the files at `place`."""
    if suite == "ruler":
        yield from _ruler(place / "README.md")
        return
    for each in known():
        if each.suite == suite:
            yield _cell(each, place / each.file)


def _cell(each: Known, path: Path) -> Cell:
    cell = Cell(
        suite=each.suite,
        model=each.model,
        task=each.task,
        published=each.published,
        ours=None,
        status="missing",
        note=f"there is no {each.file}",
    )
    if not path.is_file():
        return cell
    content = path.read_bytes()
    same = hashlib.sha256(content).hexdigest() == each.sha256 if each.sha256 else None
    scores = _infinitebench(each, content) if each.suite == "infinitebench" else _longchat(content, path)
    ours = f"{100 * fmean(scores):.2f}"
    status = "equal" if agrees(each.published, ours) else "differs"
    note = each.note if same and ours == each.ours else ""
    if same and ours != each.ours:
        note = f"this very file gave {each.ours} before: our scorer has changed"
    return replace(cell, ours=ours, status=status, samples=len(scores), known_file=same, note=note)


def agrees(published: str, ours: str) -> bool:
    """Equal as printed; `<5` agrees with anything below 5."""
    if published.startswith("<"):
        return float(ours) < float(published[1:])
    return round(float(ours), 2) == float(published)


def _infinitebench(each: Known, content: bytes) -> list[float]:
    rule = TABLE[each.task][1]
    scores = []
    for row in _rows(content, each.file):
        reply = row["prediction"] if "prediction" in row else row["pred"]
        if each.model == "gpt4" and each.task == "math_calc":
            reply = re.sub("[0-9]+", "", reply, count=1)  # it was led to repeat the first number; published so
        scores.append(rule(reply, references_of(each.task, row)))
    return scores


def _rows(content: bytes, name: str) -> Iterator[dict]:
    """Objects, one per line; what follows an object on its line is passed over, as one published file needs."""
    for number, line in enumerate(content.decode("utf-8").split("\n"), start=1):
        if line.strip():
            try:
                yield json.JSONDecoder().raw_decode(line.strip())[0]
            except ValueError as error:
                raise DamagedFile(f"line {number} of {name} is damaged ({error}); get the file again") from error


def _longchat(content: bytes, path: Path) -> list[float]:
    """1 where the last number of a reply is the line's number."""
    pattern = re.compile(r"Label: (\d+), Predict: (.*), Parsed: .*?, prompt length: ")
    lines = [line for line in content.decode("utf-8").split("\n") if line.startswith("Label: ")]
    scores = []
    for line in lines:
        found = pattern.match(line)
        if not found:
            raise DamagedFile(f"{str(path)!r} has a line of another form: {line[:60]!r}")
        scores.append(float(read_number(found[2], "last") == int(found[1])))
    if not scores:
        raise DamagedFile(f"{str(path)!r} has no predictions")
    return scores


def _ruler(path: Path) -> Iterator[Cell]:
    """The averages and effective length of every row of RULER's table, from the row's own scores."""
    for line in path.read_text(encoding="utf-8").split("\n"):
        cells = [re.sub("<[/a-z]*>", "", cell).strip() for cell in line.strip().strip("|").split("|")]
        name, size = re.match(r"\[([^\]]+)\]", cells[0]), re.search(r"\) (\([^()]*\))$", cells[0])
        if not name or len(cells) < 10:
            continue
        scores = [float(cell) for cell in cells[3:9] if re.fullmatch(r"[\d.]+", cell)]
        model = f"{name[1]} {size[1]}" if size else name[1]
        yield _length(model, cells[2], dict(zip(_LENGTHS, scores, strict=False)))
        yield from _averages(model, cells[9:], scores)


def _averages(model: str, printed: list[str], scores: list[float]) -> Iterator[Cell]:
    rules = {"average": fmean, "wAvg (inc)": weighted_increasing, "wAvg (dec)": weighted_decreasing}
    for (task, rule), cell in zip(rules.items(), printed, strict=False):
        number = re.match(r"[\d.]+", cell)
        if number:
            ours = rule(scores)
            near = abs(ours - float(number[0])) <= 0.1001  # the scores themselves are rounded to 0.1
            status = "equal" if near else "differs"
            yield Cell(suite="ruler", model=model, task=task, published=number[0], ours=f"{ours:.2f}", status=status)


def _length(model: str, printed: str, scores: dict[int, float]) -> Cell:
    found = effective_length(scores, above=RULER_THRESHOLD)
    shown = "<4K" if found is None else ">128K" if found == 128 else f"{found}K"
    printed = printed.upper()
    status = "equal" if shown == printed else "differs"
    note = "the row was reported by other authors" if status == "differs" and "*" in model else ""
    return Cell(
        suite="ruler", model=model, task="effective length", published=printed, ours=shown, status=status, note=note
    )
