"""A frame as Markdown for people, as CSV of cells for spreadsheets, and as Parquet of samples for data frames."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from farspan.errors import OptionError
from farspan.measure.cells import ALL, RULES, Summary
from farspan.measure.contrast import Contrast
from farspan.measure.effective import effective
from farspan.measure.frame import Column
from farspan.measure.record import Record
from farspan.measure.statistics import Interval
from farspan.measure.validity import Check
from farspan.measure.words import RULE_TEXTS, bytes_text, interval_text, p_text, points_text, score_text, seconds_text


def csv_text(summary: Summary) -> str:
    """One row per task, length and column, with everything a cell knows; shares in [0, 1], bytes, seconds."""
    rows = list(_cells(summary))
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _cells(summary: Summary) -> Iterable[dict[str, Any]]:
    for (task, length, column), cell in summary.cells.items():
        row: dict[str, Any] = {"task": task, "length": length, **column._asdict(), "n": cell.n}
        row |= {"contexts": cell.contexts, "errors": cell.errors, "ranked": task in summary.ranked}
        for rule in RULES:
            mean, low, high = cell.score(rule) or (None, None, None)
            row |= {rule: mean, f"{rule}_low": low, f"{rule}_high": high}
        yield row | {"nll": cell.nll, "tokens": cell.tokens, "characters": cell.characters} | asdict(cell.costs)


def write_parquet(summary: Summary, file: Path) -> None:
    """One row per sample, every field of its record; labels and what was held in an excerpt as JSON text."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise OptionError(
            "--parquet needs pyarrow, which is not installed; type: pip install 'farspan[parquet]'"
        ) from error
    kinds = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "tuple[str, ...]": pa.list_(pa.string())}
    kinds["tuple[float, ...]"] = pa.list_(pa.float64())
    schema = pa.schema(
        [pa.field("run", pa.string())]
        + [pa.field(f.name, kinds.get(str(f.type).split(" |")[0], pa.string())) for f in fields(Record)]
    )
    rows = [_flat(run.name, record) for run in summary.frame.runs for record in run.records]
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), file, compression="zstd")


def _flat(run: str, record: Record) -> dict[str, Any]:
    values = asdict(record)
    excerpt = json.dumps(values["excerpt"], ensure_ascii=False) if record.excerpt else None
    labels = json.dumps(values["labels"], ensure_ascii=False)
    return {"run": run, **values, "references": list(record.references), "labels": labels, "excerpt": excerpt}


def markdown(summary: Summary, checks: Sequence[Check], contrasts: Sequence[Contrast]) -> str:
    """The same tables as the page's, without its charts."""
    parts = [
        ["# farspan report", *(f"* `{run.path}`: {len(run.records):,} samples" for run in summary.frame.runs)],
        ["## Plans", *_plans(summary), "", f"Scores are means over {summary.basis()}."],
        ["## Validity", *_validity(checks)],
        ["## Effective length", *_effective(summary)],
        ["## Tasks", *_matrix(summary)],
        *(["## " + f"{c.b} against {c.a}".replace("\n", " "), *_contrast(c)] for c in contrasts),
    ]
    return "\n\n".join("\n\n".join([part[0], "\n".join(part[1:])]) for part in parts) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table; what would break a row is escaped."""
    lines = [list(head), ["---"] * len(head), *map(list, rows)]
    return ["| " + " | ".join(_cell(text) for text in line) + " |" for line in lines]


def _cell(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())


def _plans(summary: Summary) -> list[str]:
    head = ["plan", "score [95%]", "bytes held", "of full", "peak", "read", "first token", "tokens/s"]
    return table(head, [_plan(summary, column) for column in summary.frame.columns])


def _plan(summary: Summary, column: Column) -> list[str]:
    costs, point = summary.column_costs(column), summary.overall(column, "official")
    share = costs.held_bytes / costs.full_bytes if costs.held_bytes is not None and costs.full_bytes else None
    return [
        summary.frame.label(column),
        interval_text(point and point.score),
        bytes_text(costs.held_bytes),
        "–" if share is None else f"{share:.1%}",
        bytes_text(costs.peak_bytes),
        seconds_text(costs.read_seconds),
        seconds_text(costs.first_token_seconds),
        "–" if costs.tokens_per_second is None else f"{costs.tokens_per_second:,.0f}",
    ]


def _validity(checks: Sequence[Check]) -> list[str]:
    head = ["verdict", "check", "found", "allowed", "where"]
    return table(head, [[c.verdict, c.name, c.found, c.allowed, "; ".join(c.where)] for c in checks])


def _effective(summary: Summary) -> list[str]:
    rows = []
    for column in summary.frame.columns:
        base = summary.frame.reference(column) or column
        curve = summary.curve(ALL, column, "official")
        for found in effective(curve, summary.curve(ALL, base, "official")):
            label = summary.frame.label(column)
            rows.append([label, RULE_TEXTS[found.rule], str(found.tokens), str(found.characters), found.note])
    return table(["plan", "rule", "tokens [95%]", "characters [95%]", "note"], rows)


def _matrix(summary: Summary) -> list[str]:
    columns = summary.frame.columns
    rows = []
    for task in summary.frame.tasks:
        lengths = summary.frame.lengths
        cells = [interval_text(summary.over_lengths(task, lengths, column, "official")) for column in columns]
        rows.append([task, *cells, summary.unranked(task)])
    return table(["task", *(summary.frame.label(c) for c in columns), "not ranked because"], rows)


def _contrast(contrast: Contrast) -> list[str]:
    rows = [[r.task, *_difference(r.comparison), p_text(r.adjusted), r.comparison.test] for r in contrast.rows]
    if contrast.overall:
        rows.append(["ranked tasks", *_difference(contrast.overall), p_text(contrast.overall.p), contrast.overall.test])
    return table(["task", "difference [95%]", "better", "worse", "samples", "detectable", "p", "test"], rows)


def _difference(found: Any) -> list[str]:
    interval = Interval(found.difference, found.low, found.high)
    detectable = "none" if found.detectable is None else score_text(found.detectable)
    return [points_text(interval), f"{found.gained:,}", f"{found.lost:,}", f"{found.samples:,}", detectable]
