"""docs/quality.md: what the runs of `benchmarks.quality` say, in tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.pages import claimed, code, interval, machine, markdown, percent, weights
from benchmarks.quality import CLAIMS, NULLS, PARTS, Claim
from farspan.measure.cells import Summary
from farspan.measure.contrast import contrasts
from farspan.measure.frame import Column, load
from farspan.measure.record import Mode
from farspan.plan import Plan

HEAD = """\
# Quality of every method on the reference model

Made by `python -m benchmarks.quality && python -m benchmarks.quality --write`, which resumes where it was stopped.

Scores are shares of right answers in percent, 95% intervals in brackets; the mean counts every ranked task alike, and
its interval counts contexts, not questions (eight are asked of each). *nats* is the negative log-likelihood per token
of the text that follows. Bytes are those held after reading, as a share of a full cache in the model's dtype; read is
the mean and first token the median, on {machine}, which did other work beside: only large differences between times say
anything. Tasks that the full cache fails (below 50%) are shown and do not rank.
"""


def page(folder: Path) -> str:
    """The whole page, from the parts that are there."""
    parts = {name: Summary(load([folder / name])) for name in PARTS if (folder / name / "run.json").is_file()}
    manifest = dict(next(iter(parts.values())).frame.runs[0].manifest)
    blocks = [HEAD.format(machine=machine(manifest)), weights(manifest)]
    blocks.append(_unfinished(parts))
    titles = {
        "methods": "## Every method: 2k tokens, read in stream order without knowing the questions",
        "sharing": "## Layers that share scores, in the same tasks and contexts",
        "heads": "## Heads pruned in cascade, in the same tasks and contexts",
        "budgets": "## Six plans by budget, without the question and with it",
        "layerwise": "## The same plans, layer by layer",
        "lengths": "## Six plans at 4k and 8k tokens",
    }
    for name, title in titles.items():
        if name in parts:
            blocks += [title, f"{PARTS[name].contexts} contexts per task and length."]
            blocks += [_table(parts[name], length) for length in parts[name].frame.lengths]
        if name == "methods" and name in parts:
            blocks += [_beside_nulls(parts[name], share) for share in ("25%", "10%")]
    if "claims" in parts:
        blocks += ["## What papers say, and what showed here", _claims(parts["claims"])]
    return "\n\n".join(block.strip() for block in blocks if block) + "\n"


def _unfinished(parts: Mapping[str, Summary]) -> str:
    """What of the parts is not there, and how much of the others."""
    told = (
        [f"nothing of {', '.join(lacking)} was run"]
        if (lacking := [name for name in PARTS if name not in parts])
        else []
    )
    for name, summary in parts.items():
        contexts = [
            len({record.context_id for record in records})
            for groups in summary.frame.groups.values()
            for records in groups.values()
        ]
        if min(contexts) < PARTS[name].contexts:
            told.append(f"of {name}, cells have {min(contexts)} to {max(contexts)} of {PARTS[name].contexts} contexts")
    return f"**These tables are unfinished**: {'; '.join(told)}. The same command goes on with them." if told else ""


def _table(summary: Summary, length: int) -> str:
    """One row per column, the best mean first, after the full cache."""
    tasks = [task for task in summary.frame.tasks if task not in summary.likelihood]
    names = [f"{task.split('/')[-1]}{'' if task in summary.ranked else ' (not ranked)'}" for task in tasks]
    judged = sorted(summary.likelihood)
    head = ["plan", "mean", *names, *(["nats"] if judged else []), "bytes", "read", "first token"]
    columns = sorted(summary.frame.columns, key=lambda c: (not c.is_full, -_mean(summary, c, length)))
    rows = [list(_row(summary, column, length, tasks, judged)) for column in columns]
    alone = len(summary.frame.lengths) == 1
    caption = "" if alone else f"**{length:,} tokens**\n\n"
    return caption + markdown([head, *rows])


def _beside_nulls(summary: Summary, share: str) -> str:
    """Which methods keep more than the best null baseline of the same share, and which do not."""
    means = {
        summary.frame.label(column): 100 * _mean(summary, column, summary.frame.lengths[0])
        for column in summary.frame.columns
        if f":{share}" in summary.frame.label(column)
    }
    null, best = max(((f"{name}:{share}", means.pop(f"{name}:{share}")) for name in NULLS), key=lambda pair: pair[1])
    above = [f"`{plan}` ({mean:.1f})" for plan, mean in means.items() if mean > best]
    below = [f"`{plan}`" for plan, mean in means.items() if mean <= best]
    return (
        f"**At {share}** the best null baseline is `{null}` ({best:.1f}). Above it: {', '.join(above) or 'none'}. "
        f"Not above it, on this model and without knowing the questions: {', '.join(below) or 'none'}."
    )


def _mean(summary: Summary, column: Column, length: int) -> float:
    point = summary.overall(column, "official", length)
    return point.score.mean if point else -1.0


def _row(summary: Summary, column: Column, length: int, tasks: Sequence[str], judged: Sequence[str]) -> Iterator[str]:
    point = summary.overall(column, "official", length)
    yield code(summary.frame.label(column))
    yield interval(point.score if point else None)
    for task in tasks:
        cell = summary.cells.get((task, length, column))
        yield percent(cell.official.mean if cell and cell.official else None)
    for task in judged:
        cell = summary.cells.get((task, length, column))
        yield "-" if cell is None or cell.nll is None else f"{cell.nll:.2f}"
    cost = summary.column_costs(column, length)
    yield "-" if not cost.held_bytes or not cost.full_bytes else f"{cost.held_bytes / cost.full_bytes:.1%}"
    yield "-" if cost.read_seconds is None else f"{cost.read_seconds * 1000:,.0f} ms"
    yield "-" if cost.first_token_seconds is None else f"{cost.first_token_seconds * 1000:,.0f} ms"


def _claims(summary: Summary) -> str:
    """Every claim without the question, then with it."""
    asked = [(claim, mode) for mode in PARTS["claims"].modes for claim in CLAIMS]
    sides = [
        [claim.said, f"{code(claim.better)} over {code(claim.worse)}", "known" if mode == "aware" else "unknown"]
        for claim, mode in asked
    ]
    found = [contrasts(summary, _sides(claim, mode))[0].overall for claim, mode in asked]
    return claimed(["claim", "plans", "question"], sides, found, lacking="no task ranks")


def _sides(claim: Claim, mode: Mode) -> tuple[str, str]:
    """The labels of the worse and of the better column."""
    worse, better = (f"{Plan.parse(plan)} · {mode}" for plan in (claim.worse, claim.better))
    return worse, better
