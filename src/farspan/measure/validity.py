"""What must hold before any score is looked at: that samples were what they should be, fed whole, and answered."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from farspan.measure.frame import Frame
from farspan.measure.record import Record
from farspan.plan import DEFAULT

Verdict = Literal["pass", "warn", "fail"]
VERDICTS: tuple[Verdict, ...] = ("pass", "warn", "fail")
TENTHS = 10
ENOUGH = 8
"""Fewer samples than this say nothing about how depths are spread."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One question put to a whole run or several, with what was found and from where on it is too much."""

    name: str
    verdict: Verdict
    found: str
    allowed: str
    why: str
    """What goes wrong with scores where it fails."""
    where: tuple[str, ...] = ()
    """The tasks that do not pass, the worst first, each with its own figure."""
    histogram: tuple[int, ...] = ()
    """Of depths: samples per tenth of the context."""


def check(frame: Frame) -> list[Check]:
    """All checks, in the order in which a person should read them."""
    every = [record for run in frame.runs for record in run.records]
    good = [record for record in every if record.status == "ok"]
    # Likelihood samples generate nothing. What a plan breaks is its score; what breaks under the full cache is a fault.
    # A plan may also cut the text itself short, as truncate does.
    whole = [record for record in good if record.plan == DEFAULT] or good
    asked = [record for record in whole if record.nll is None]
    under = " under the full cache" if asked and asked[0].plan == DEFAULT else ""
    share = _Shares(frame)
    return [
        share.check(
            "errors", every, lambda r: r.status == "error", warn=0, fail=0, detail=_messages(every),
            why="a sample without a score is missing from its mean, and not at random",
        ),
        _complete(frame),
        _repeated(frame),
        share.check(
            "truncated prompts", every, lambda r: r.truncated, warn=0, fail=0,
            why="what was cut off cannot be answered: the score is that of another, shorter text",
        ),
        _fill(frame, good),
        share.check(
            "gold text missing", [r for r in whole if r.gold_present is not None], lambda r: r.gold_present is False,
            warn=0, fail=0, why="the answer was not in what the model read",
        ),
        _depths(frame, good),
        _duplicates(frame, whole),
        share.check(
            f"replies at the token cap{under}", asked, lambda r: r.finish == "length", warn=0.10, fail=None,
            detail=_capped(asked), why="a reply that was cut off may have been about to be right",
        ),
        share.check(
            f"empty replies{under}", asked, lambda r: not r.reply.strip(), warn=0.01, fail=0.25,
            why="often a wrong chat template or a stop token at the start, not a wrong answer",
        ),
        share.check(
            f"unparsable replies{under}", [r for r in asked if r.parsed is not None], lambda r: r.parsed is False,
            warn=0.05, fail=0.50, why="they score 0 for their form, whatever they say",
        ),
    ]  # fmt: skip


def verdict(checks: Iterable[Check]) -> Verdict:
    """The worst of them."""
    return VERDICTS[max((VERDICTS.index(c.verdict) for c in checks), default=0)]


@dataclass(frozen=True)
class _Shares:
    """Checks that count samples with something wrong, over all and task by task."""

    frame: Frame

    def check(
        self,
        name: str,
        records: list[Record],
        wrong: Callable[[Record], bool],
        *,
        warn: float,
        fail: float | None,
        why: str,
        detail: str = "",
    ) -> Check:
        """A task with more than `warn` or `fail` of its samples wrong gives the check its verdict."""
        by_task: defaultdict[str, list[bool]] = defaultdict(list)
        for record in records:
            by_task[self.frame.task(record)].append(wrong(record))
        rates = {task: sum(found) / len(found) for task, found in by_task.items()}
        worst = max(rates.values(), default=0.0)
        count, of = sum(map(sum, by_task.values())), len(records)
        over = sorted((task for task, rate in rates.items() if rate > warn), key=lambda task: -rates[task])
        limits = f"up to {warn:.0%} of a task's samples" if warn else "none"
        return Check(
            name=name,
            verdict="fail" if fail is not None and worst > fail else "warn" if over else "pass",
            found=(f"{count:,} of {of:,}" if of else "no sample to check")
            + (f": {detail}" if count and detail else ""),
            allowed=limits,
            why=why,
            where=tuple(f"{task}: {sum(by_task[task]):,} of {len(by_task[task]):,}" for task in over),
        )


def _messages(records: Iterable[Record]) -> str:
    """The most frequent errors."""
    counted = Counter(
        (record.error or "no message").split("\n")[0][:120] for record in records if record.status == "error"
    )
    return "; ".join(f"{message} ({count:,} times)" for message, count in counted.most_common(3))


def _capped(records: Iterable[Record]) -> str:
    """How many of the capped replies were not right anyway."""
    wrong = sum(record.finish == "length" and (record.official or 0) < 1 for record in records)
    return f"{wrong:,} of them short of the full score"


def _complete(frame: Frame) -> Check:
    """Whether every column answered the same samples."""
    ids = {column: {r.id for rs in cells.values() for r in rs} for column, cells in frame.groups.items()}
    every = set().union(*ids.values())
    short = {frame.label(column): len(every - have) for column, have in ids.items() if every - have}
    return Check(
        name="same samples in every column",
        verdict="warn" if short else "pass",
        found=f"{len(every):,} samples, {'not all of them everywhere' if short else 'all of them everywhere'}",
        allowed="no column lacks any",
        why="means over different samples are not comparable; tables use the tasks and lengths that all columns have",
        where=tuple(f"{label}: {count:,} missing" for label, count in sorted(short.items(), key=lambda s: -s[1])),
    )


def _repeated(frame: Frame) -> Check:
    """Whether a run holds an answer twice, or was not as it should be."""
    notes = [f"{run.name}: {note}" for run in frame.runs for note in run.notes]
    repeated = [f"{run.name}: {run.repeated:,} samples answered twice" for run in frame.runs if run.repeated]
    return Check(
        name="files as they should be",
        verdict="fail" if repeated else "warn" if notes else "pass",
        found=f"{len(notes) + len(repeated)} remarks"
        if notes or repeated
        else f"{len(frame.runs)} of {len(frame.runs)}",
        allowed="no sample twice, no line damaged",
        why="something else wrote into the run, or it was stopped while writing",
        where=(*repeated, *notes),
    )


def _fill(frame: Frame, records: Iterable[Record]) -> Check:
    """Prompt and room for the reply, beside the length asked for; suites of their own lengths ask for none.

    A context counts by its fullest question: a text that is judged bit by bit is full only at its end, and what is
    judged there is in its tokens already.
    """
    fullest: defaultdict[tuple[str, str, int], float] = defaultdict(float)
    for record in records:
        if record.length > 0 and record.tokens > 0:
            room = record.max_new_tokens if record.nll is None else 0
            place = (frame.task(record), record.context_id, record.length)
            fullest[place] = max(fullest[place], (record.tokens + room) / record.length)
    by_task: defaultdict[str, list[float]] = defaultdict(list)
    for (task, _, _), ratio in fullest.items():
        by_task[task].append(ratio)
    every = [ratio for ratios in by_task.values() for ratio in ratios]
    over = {task: max(ratios) for task, ratios in by_task.items() if max(ratios) > 1}
    under = {task: fmean(ratios) for task, ratios in by_task.items() if fmean(ratios) < 0.9 or min(ratios) < 0.8}
    found = f"{min(every):.1%} to {max(every):.1%}, mean {fmean(every):.1%}" if every else "no sample to check"
    return Check(
        name="length filled",
        verdict="fail" if over else "warn" if under else "pass",
        found=found,
        allowed="at most 100%; mean of a task at least 90%, none below 80%",
        why="a score at 16k tokens must come from texts of 16k tokens",
        where=(
            *(f"{task}: up to {ratio:.1%}" for task, ratio in over.items()),
            *(f"{t}: {min(by_task[t]):.1%} to {max(by_task[t]):.1%}, mean {m:.1%}" for t, m in under.items()),
        ),
    )


def _depths(frame: Frame, records: Iterable[Record]) -> Check:
    """How gold depths are spread; each sample counts once, under however many plans it was answered."""
    known = {(frame.task(record), record.id): record.depth for record in records if record.depth is not None}
    by_task: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for (task, _), depth in known.items():
        by_task[task][min(TENTHS - 1, int(depth * TENTHS))] += 1
    fullest = {task: max(c.values()) / c.total() for task, c in by_task.items() if c.total() >= ENOUGH}
    uneven = sorted((task for task, most in fullest.items() if most > 0.5), key=lambda task: -fullest[task])
    whole = sum(by_task.values(), Counter())
    return Check(
        name="gold depths spread",
        verdict="warn" if uneven else "pass",
        found=f"{whole.total():,} samples in {len(whole)} of {TENTHS} tenths of the context"
        if known
        else "no sample has a depth",
        allowed="at most half of a task's samples in one tenth",
        why="where the answer always stands at one place, a score says nothing about the others",
        where=tuple(f"{task}: {fullest[task]:.0%} in one tenth" for task in uneven),
        histogram=tuple(whole[tenth] for tenth in range(TENTHS)) if known else (),
    )


def _duplicates(frame: Frame, records: Iterable[Record]) -> Check:
    """Prompts that were asked more than once under one column."""
    by_task: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for record in records:
        if record.prompt_hash:
            by_task[frame.task(record)][record.id] = record.prompt_hash
    extra = {task: len(prompts) - len(set(prompts.values())) for task, prompts in by_task.items()}
    rates = {task: count / len(by_task[task]) for task, count in extra.items() if count}
    worst = max(rates.values(), default=0.0)
    return Check(
        name="duplicate prompts",
        verdict="fail" if worst > 0.05 else "warn" if rates else "pass",
        found=f"{sum(extra.values()):,} of {sum(map(len, by_task.values())):,}",
        allowed="none; up to 5% of a task's samples are only a warning",
        why="the same prompt twice is one sample counted as two",
        where=tuple(f"{task}: {extra[task]:,}" for task in sorted(rates, key=lambda task: -rates[task])),
    )
