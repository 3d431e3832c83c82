"""docs/lookup.md: what the runs of `benchmarks.lookup` say, in tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from benchmarks.lookup import CLAIMS, FETCHED, NULLS, PARTS, Claim, Named
from benchmarks.pages import code, difference, interval, machine, markdown, percent, verdict, weights
from farspan.measure.cells import Summary
from farspan.measure.frame import Column, load
from farspan.measure.paired import Comparison, compare, holm
from farspan.measure.record import Record
from farspan.plan import Plan

MARGIN = 0.10
BY_LAYER = 256
HEAD = """\
# Looking up, reading under patterns, reading apart: quality on the reference model

Made by `python -m benchmarks.lookup && python -m benchmarks.lookup --write`, which resumes where it was stopped;
`--times 8 -o FOLDER` asks eight times as many questions. {machine}, at the lowest priority beside other work, so no
times are shown.

One fact among eight kinds in source code, asked in the wordings of training: shares of right answers in percent by the
official rule, with 95% intervals at the effective sample size (eight questions are asked of a context; contexts
differ). **The contexts are few, and the intervals say so.** Up to 8,192 tokens, the trained length, positions are the
model's own; beyond, `yarn(factor=8)` is part of every plan.
"""
FETCH = """\
## Looking up: entries that a step reads

Everything is read and held; a step of question or answer reads the entries that a method fetches, 4 sinks, 64 recent
ones and what is new. *Covered* is the share of full attention, softmax over all that is held, that falls on what is
read: percent, mean over the tokens of question and answer, query heads, layers and questions; by layer for the column
that says so. Plans that fetch for questions alone share one reading. *Read* counts entries per head and token as
measured: all rows aim at the same bytes, but for `recycled`, whose step for the question reads everything. *Index* is
what choosing has to look at besides, as a share of the bytes of all keys and values; every key is half of them.

The baselines hold as many entries as the others read, chosen without looking at the question: `newest` keeps sinks and
the newest of a text that was read in full; `window` and `random` held no more while reading, and `truncate` read no
more.
"""
PREFILL = """\
## Reading under patterns

Which pairs of a query and a key are computed while reading; questions and answers see everything. *Pairs* is the share
of a dense read's that the patterns showed, in percent, as counted while reading. `truncate` read half of the text and
`jrt` read it twice.
"""
SKIM = """\
## Reading what the question needs

Told the question, these choose the tokens that are read, by one of the model's own layers: `gemfilter` runs two of four
layers densely over the text, `ilre` two under sinks and a window. *Read* is the share of the tokens that the whole
model then read.
"""
PARALLEL = """\
## Reading apart

Texts cut into pieces that do not see each other, answered together. `concat` puts them one after another,
`side by side` at the same positions; `ape` sharpens and scales attention to them, `sinks` reads each behind the text's
first four tokens, and `best piece` lets each head attend to one of them; `homer` merges pieces two by two while they
are read, and drops tokens as it does. `truncate` reads a quarter of the text. At 32k
`yarn(factor=8)` is part of every plan, though pieces at the same positions stay within the trained length.
"""
CLAIMED = """\
## What the papers claim, and what showed here

Differences are paired: the same questions of the same contexts, over all lengths, counted by context (exact sign flips
of contexts, p after Holm over the page); fewer than six contexts decide nothing. *Keeps* shows where the interval of
the difference lies above -{margin:.0f} points, and its opposite where it lies below. Fetching at {entries} entries. A
model of 3.4 million parameters with one layer of retrieving heads decides these here; papers' models are a thousand
times larger.
"""


@dataclass(frozen=True)
class Made:
    """A part and its run."""

    name: str
    part: Named
    summary: Summary

    @property
    def length(self) -> int:
        """Tokens."""
        return self.part.lengths[0]

    def column(self, row: str) -> Column | None:
        """The column of a row's plan; None where it has no samples yet."""
        plan = str(Plan.parse(self.part.named[row])) if row in self.part.named else None
        return next((column for column in self.summary.frame.columns if column.plan == plan), None)

    def records(self, row: str) -> list[Record]:
        """Samples of a row."""
        column = self.column(row)
        groups = self.summary.frame.groups[column] if column else {}
        return [record for records in groups.values() for record in records if record.status == "ok"]

    def accuracy(self, row: str) -> str:
        """With its interval."""
        column = self.column(row)
        cells = [cell for (_, _, c), cell in self.summary.cells.items() if c == column]
        return interval(cells[0].official, 0) if cells else "-"


def page(folder: Path) -> str:
    """The whole page, from the parts that are there."""
    made = [
        Made(name, part, Summary(load([folder / name])))
        for name, part in PARTS.items()
        if (folder / name / "samples.jsonl").is_file()
    ]
    families = {name: [each for each in made if each.name.startswith(name)] for name in ("fetch", "prefill", "skim")}
    pieces = [each for each in made if each.name.startswith("parallel")]
    manifest = dict(made[0].summary.frame.runs[0].manifest)
    blocks = [HEAD.format(machine=machine(manifest)), weights(manifest)]
    blocks += [_unfinished(made), FETCH, *map(_fetch, families["fetch"])]
    blocks += [PREFILL, _side_by_side(families["prefill"], _pairs, "pairs")]
    blocks += [SKIM, *(_side_by_side([each], _read, "read") for each in families["skim"])]
    blocks += [PARALLEL, _side_by_side(pieces, None, "")]
    blocks += [CLAIMED.format(margin=MARGIN * 100, entries=BY_LAYER), _claims(made), _plans(made)]
    return "\n\n".join(block.strip() for block in blocks if block) + "\n"


def _unfinished(made: Sequence[Made]) -> str:
    """What of the parts is not there."""
    there = {each.name: min(_contexts(each)) >= each.part.contexts for each in made}
    lacking, begun = [name for name in PARTS if name not in there], [name for name, whole in there.items() if not whole]
    told = [f"nothing of {', '.join(lacking)} was run"] if lacking else []
    told += [f"{', '.join(begun)} stopped early"] if begun else []
    return f"**This table is unfinished**: {'; '.join(told)}. The same command goes on with it." if told else ""


def _contexts(made: Made) -> list[int]:
    """How many of them each plan has answered."""
    return [len({record.context_id for record in made.records(row)}) for row in made.part.named]


def _caption(made: Made) -> str:
    """How much there is, and how much there was to be."""
    contexts = _contexts(made)
    least, most = min(contexts), max(contexts)
    text = f"**{made.length:,} tokens**, {most} context{'s' if most > 1 else ''}"
    if least < made.part.contexts:
        rows_short = sum(count < made.part.contexts for count in contexts)
        text += f" of {made.part.contexts} (stopped early: {rows_short} of {len(contexts)} plans have fewer, "
        text += f"{least} at the least)"
    return text + f", {8 * most} questions"


def _fetch(made: Made) -> str:
    """One row per method; for each number of entries accuracy and what was covered."""
    counts = sorted({int(row.split()[1]) for row in made.part.named if " " in row})
    head = ["method", *(text for k in counts for text in (f"right, {k}", f"covered, {k}"))]
    head += [f"by layer, {BY_LAYER}", f"read, {BY_LAYER}", "index"]
    rows = [["full", *(text for _ in counts for text in (made.accuracy("full"), "100")), "", f"{_held(made):,.0f}", ""]]
    rows += [_fetch_row(made, method, counts) for method in (*NULLS, *FETCHED)]
    return _caption(made) + "\n\n" + markdown([head, *rows])


def _fetch_row(made: Made, method: str, counts: Sequence[int]) -> list[str]:
    cells: list[str] = []
    for k in counts:
        covered = _covered(made.records(f"{method} {k}"))
        cells += [made.accuracy(f"{method} {k}"), percent(covered and fmean(covered), 1)]
    records = made.records(f"{method} {BY_LAYER}")
    layers = " ".join(percent(share) for share in _covered(records) or [])
    read = [record.entries_read for record in records if record.entries_read is not None]
    held = [record.held for record in records if record.held is not None]
    entries = fmean(read or held) if read or held else None
    return [code(method), *cells, layers, "-" if entries is None else f"{entries:,.0f}", _index(made, method)]


def _covered(records: Sequence[Record]) -> list[float] | None:
    """-> the mean share of each layer."""
    known = [record.recall for record in records if record.recall]
    return [fmean(shares) for shares in zip(*known, strict=True)] if known else None


def _index(made: Made, method: str) -> str:
    """Bytes beside entries, of what all entries take."""
    if method in ("topk", "tokenselect"):
        return "every key"
    if method == "recycled":
        return "every key, at full steps"
    full, its = _bytes(made.records("full")), _bytes(made.records(f"{method} {BY_LAYER}"))
    return "" if method in NULLS or not full or not its else f"{its / full - 1:.1%}"


def _bytes(records: Sequence[Record]) -> float | None:
    known = [record.held_bytes for record in records if record.held_bytes is not None]
    return fmean(known) if known else None


def _held(made: Made) -> float:
    return fmean(record.held or 0.0 for record in made.records("full"))


def _side_by_side(parts: Sequence[Made], more: Callable[[Made, str], str] | None, named: str) -> str:
    """One row per plan, the lengths beside one another."""
    if not parts:
        return ""
    rows = list(dict.fromkeys(row for made in parts for row in made.part.named))
    captions = [_caption(made) for made in parts]
    head = ["plan", *(text for made in parts for text in _heads(made, named))]
    table = []
    for row in rows:
        cells = [[made.accuracy(row), *([more(made, row)] if more else [])] for made in parts]
        table.append([code(row), *(text for its in cells for text in its)])
    return "; ".join(captions) + ".\n\n" + markdown([head, *table])


def _heads(made: Made, named: str) -> Iterator[str]:
    length = f"{made.length // 1024}k"
    yield f"right, {length}"
    if named:
        yield f"{named}, {length}"


def _pairs(made: Made, row: str) -> str:
    """As counted while reading, or by the tokens that were read of all."""
    known = [record.pairs for record in made.records(row) if record.pairs is not None]
    share = _tokens(made, row)
    return percent(fmean(known)) if known else percent(share and share**2)


def _read(made: Made, row: str) -> str:
    return percent(_tokens(made, row), 1)


def _tokens(made: Made, row: str) -> float | None:
    """Tokens that were read, of those of the full text."""
    theirs = {record.id: record.tokens for record in made.records("full")}
    known = [record.tokens / theirs[record.id] for record in made.records(row) if record.id in theirs]
    return fmean(known) if known else None


def _claims(made: Sequence[Made]) -> str:
    found = [_compared(claim, made) for claim in CLAIMS]
    adjusted = iter(holm([scores.p for scores, _ in found if scores]))
    rows = [["claim", "rows", "right, points", "covered, points", "p (Holm)", "contexts", "here"]]
    for claim, (scores, covered) in zip(CLAIMS, found, strict=True):
        said = f"`{claim.better}` {'keeps' if claim.keeps else 'over'} `{claim.worse}`"
        if scores is None:
            rows.append([claim.said, said, "-", "-", "-", "0", "not run"])
            continue
        p = next(adjusted)
        covers = difference(covered) if covered else ""
        here = _kept(scores, p) if claim.keeps else verdict(scores, p)
        if scores.detectable is None:
            here = "undecided: too few contexts"
        rows.append([claim.said, said, difference(scores), covers, f"{p:.3f}", str(scores.contexts), here])
    return markdown(rows)


def _compared(claim: Claim, made: Sequence[Made]) -> tuple[Comparison | None, Comparison | None]:
    """-> by right answers, and by what was covered, where both sides fetch."""
    pairs: list[tuple[Record, Record]] = []
    for each in made:
        if each.name.startswith(claim.family):
            theirs = {record.id: record for record in each.records(claim.worse)}
            pairs += [(theirs[r.id], r) for r in each.records(claim.better) if r.id in theirs]
    if claim.middle:
        pairs = [pair for pair in pairs if 0.25 <= (pair[0].depth or 0.0) < 0.75]
    contexts = [pair[0].context_id for pair in pairs]
    scores = compare(*([record.official or 0.0 for record in its] for its in _sides(pairs)), contexts)
    if not all(record.recall for pair in pairs for record in pair):
        return scores, None
    return scores, compare(*([fmean(record.recall or ()) for record in its] for its in _sides(pairs)), contexts)


def _sides(pairs: Sequence[tuple[Record, Record]]) -> tuple[list[Record], list[Record]]:
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _kept(each: Comparison, p: float) -> str:
    """Whether B is no worse than A by more than the margin."""
    if each.low > -MARGIN:
        return "showed"
    if each.high < -MARGIN or (p < 0.05 and each.difference < 0):
        return "the opposite showed"
    return "undecided"


def _plans(made: Sequence[Made]) -> str:
    """What the rows' names stand for."""
    rows = [["part", "row", "plan"]]
    for each in made:
        at = "256" if any(row.endswith(" 256") for row in each.part.named) else ""
        shown = [row for row in each.part.named if " " not in row or not at or row.endswith(f" {at}")]
        rows += [[each.name, code(row), code(str(Plan.parse(each.part.named[row])))] for row in shown]
    return "## The plans\n\nWhere a row stands for several numbers of entries, that of 256.\n\n" + markdown(rows)
