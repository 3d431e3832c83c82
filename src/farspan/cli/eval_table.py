"""What `farspan eval` prints: scores by task, plan and length; costs by plan and length; and a dry run's forecast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farspan.cli.output import bytes_text, counted, rows, seconds_text

if TYPE_CHECKING:
    from farspan.measure.cells import Cell, Costs, Summary
    from farspan.measure.estimate import Estimate
    from farspan.measure.frame import Column
    from farspan.measure.settings import Settings
    from farspan.measure.statistics import Interval


def summary(folder: Path, found: Summary) -> str:
    """The run for people."""
    samples = sum(len(run.records) for run in found.frame.runs)
    head = [("run", f"{folder}, {counted(samples, 'sample')}")]
    return "\n\n".join([rows(head), scores_table(found), costs_table(found)])


def scores_table(found: Summary) -> str:
    """The official score and its 95% interval, a line per task and column, a column per length."""
    frame = found.frame
    lines = [["score, 95% interval", "plan", *(length_text(n) for n in frame.lengths)]]
    for task in frame.tasks:
        for number, column in enumerate(frame.columns):
            cells = [found.cells.get((task, length, column)) for length in frame.lengths]
            lines.append([task if number == 0 else "", frame.label(column), *(_score(cell) for cell in cells)])
        why = found.unranked(task)
        if why:
            lines.append([f"  (not ranked: {why})"])
    return aligned(lines)


def costs_table(found: Summary) -> str:
    """Bytes and times, and what else was measured, a line per column and length."""
    each = [
        (column, length, found.column_costs(column, length))
        for column in found.frame.columns
        for length in found.frame.lengths
    ]
    more = [name for name in _MEASURED if any(getattr(cost, name) is not None for *_, cost in each)]
    heads = [_MEASURED[name][0] for name in more]
    lines = [["cost", "length", "held", "of full", "peak", "read", "first token", "tokens/s", *heads]]
    for column, length, cost in each:
        label = found.frame.label(column) if length == found.frame.lengths[0] else ""
        measured = [_known(getattr(cost, name), _MEASURED[name][1]) for name in more]
        lines.append([label, length_text(length), *_costs(cost), *measured])
    return aligned(lines)


_MEASURED = {
    "recall": ("recall", lambda value: f"{value:.1%}"),
    "entries_read": ("entries read", lambda value: f"{value:,.0f}"),
    "pairs": ("pairs", lambda value: f"{value:.0%}"),
}
"""Costs that only some plans have: their head, and how they are written."""


def _costs(cost: Costs) -> list[str]:
    share = cost.held_bytes / cost.full_bytes if cost.held_bytes is not None and cost.full_bytes else None
    return [
        _known(cost.held_bytes, bytes_text),
        _known(share, lambda value: f"{value:.0%}"),
        _known(cost.peak_bytes, bytes_text),
        _known(cost.read_seconds, seconds_text),
        _known(cost.first_token_seconds, seconds_text),
        _known(cost.tokens_per_second, lambda value: f"{value:,.0f}"),
    ]


def _known(value: float | None, text: Any) -> str:
    return "-" if value is None else text(value)


def _score(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    failed = f" {cell.errors}!" if cell.errors else ""
    if cell.official is None:
        return f"-{failed}"
    nll = f" {cell.nll:.2f} nats" if cell.nll is not None else ""
    return f"{_interval(cell.official)}{nll}{failed}"


def _interval(interval: Interval) -> str:
    return f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def described(folder: Path, found: Summary) -> dict[str, Any]:
    """The run for programs."""
    (run,) = found.frame.runs
    cells = found.cells.items()
    return {
        "run": str(folder),
        "samples": len(run.records),
        "errors": sum(record.status == "error" for record in run.records),
        "settings": run.manifest["settings"],
        "notes": [*run.manifest["notes"], *run.notes],
        "cells": [_described(task, length, column, cell) for (task, length, column), cell in cells],
    }


def _described(task: str, length: int, column: Column, cell: Cell) -> dict[str, Any]:
    where = {"task": task, "length": length, "plan": column.plan, "plan_hash": column.plan_hash, "mode": column.mode}
    scored = {rule: _ends(cell.score(rule)) for rule in ("official", "strict")}
    measured = {"nll": cell.nll, "tokens": None if math.isnan(cell.tokens) else cell.tokens, **vars(cell.costs)}
    return {**where, "n": cell.n, "contexts": cell.contexts, "errors": cell.errors, **scored, **measured}


def _ends(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else interval._asdict()


def foreseen(estimates: Sequence[Estimate], settings: Settings) -> str:
    """A dry run for people."""
    modes = len(settings.modes) > 1
    lines = [["task", "length", "plan", "contexts", "questions", "tokens", "peak", "held", "time"]]
    for each in estimates:
        plan = f"{each.column.plan}{f' · {each.column.mode}' if modes else ''}"
        lines.append(
            [
                each.cell.task.id,
                length_text(each.cell.length),
                plan,
                f"{each.contexts:,}",
                f"{each.contexts * each.questions:,}",
                f"{each.tokens:,}",
                _known(each.peak_bytes, bytes_text),
                _known(each.held_bytes, bytes_text),
                "will not fit" if each.trouble else _known(each.seconds, seconds_text),
            ]
        )
    known = [each.seconds for each in estimates if each.seconds is not None]
    pace = "at the speed measured just now, were every reply as long as it may be"
    total = f"about {seconds_text(sum(known))} in all, {pace}" if known else ""
    troubles = dict.fromkeys(each.trouble for each in estimates if each.trouble)
    return "\n\n".join(filter(None, [aligned(lines), total, *(f"will not fit: {trouble}" for trouble in troubles)]))


def foreseen_json(estimates: Sequence[Estimate]) -> dict[str, Any]:
    """A dry run for programs."""
    return {
        "cells": [
            {
                "task": each.cell.task.id,
                "length": each.cell.length,
                "plan": str(each.column.plan),
                "mode": each.column.mode,
                **{name: getattr(each, name) for name in ("contexts", "questions", "tokens", "peak_bytes")},
                **{name: getattr(each, name) for name in ("held_bytes", "seconds", "trouble")},
            }
            for each in estimates
        ],
        "seconds": sum(each.seconds or 0.0 for each in estimates),
    }


def length_text(length: int) -> str:
    """4096 -> 4k."""
    return f"{length // 1024}k" if length % 1024 == 0 else f"{length:,}"


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they must be; a line of one cell runs across."""
    table = [line for line in lines if len(line) > 1]
    widths = [max(len(line[i]) for line in table) for i in range(max(map(len, table)))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=False)).rstrip()
        if len(line) > 1
        else line[0]
        for line in lines
    )
