"""Scores and costs of a frame, summed up: cells, means over tasks, curves over lengths, maps over depths."""

from __future__ import annotations

import math
import zlib
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from statistics import fmean, median
from typing import Literal, NamedTuple

import numpy as np

from farspan.measure.frame import Column, Frame
from farspan.measure.record import Record
from farspan.measure.statistics import (
    LEVEL,
    Floats,
    Interval,
    average,
    cluster,
    correlation,
    quantiles,
    resample,
    wilson,
)

Rule = Literal["official", "strict"]
RULES: tuple[Rule, ...] = ("official", "strict")
RANKED_FROM = 0.5
"""A task that the full cache fails more often than not cannot tell plans apart, so it does not rank them."""
ALL = ""
"""Stands for the mean over ranked tasks."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What samples cost: bytes and read time per context, times per answer. None where nothing was measured."""

    held_bytes: float | None
    full_bytes: float | None
    peak_bytes: float | None
    """The highest."""
    read_seconds: float | None
    first_token_seconds: float | None
    """The median, as one slow answer should not hide the others."""
    tokens_per_second: float | None
    """The median."""
    recall: float | None
    """Share of full attention on what was fetched, mean over layers, tokens and answers."""
    entries_read: float | None
    """Per key-value head for a token of question or answer."""
    pairs: float | None
    """Of a dense read's pairs, the share that was computed under a prefill method."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A task at a length under a column (or several of them pooled)."""

    n: int
    """Scored samples."""
    contexts: int
    errors: int
    official: Interval | None
    strict: Interval | None
    nll: float | None
    """Mean negative log-likelihood per token, in nats, over all scored tokens."""
    tokens: float
    characters: float
    costs: Costs

    def score(self, rule: Rule) -> Interval | None:
        """By one of the two rules."""
        return self.official if rule == "official" else self.strict


class Point(NamedTuple):
    """One length of a curve: the mean over tasks and the draws behind its interval."""

    length: int
    characters: float
    score: Interval
    draws: Floats
    n: int
    contexts: int


class Square(NamedTuple):
    """One place of a depth map: depths in [bin/bins, (bin+1)/bins)."""

    length: int
    bin: int
    n: int
    score: Interval


@dataclass(frozen=True)
class Summary:
    """Everything a report says about scores, computed once and kept."""

    frame: Frame

    _drawn: dict[tuple[str, int, Column, Rule], Floats] = field(default_factory=dict, repr=False)
    """Bootstrap draws: means over tasks, curves and effective lengths all need the same."""

    @cached_property
    def cells(self) -> dict[tuple[str, int, Column], Cell]:
        """By task, length and column."""
        return {
            (task, length, column): self.cell(records, task)
            for column, groups in self.frame.groups.items()
            for (task, length), records in groups.items()
        }

    def cell(self, records: Sequence[Record], task: str) -> Cell:
        """Sum up samples of one task."""
        good = [record for record in records if record.status == "ok"]
        return Cell(
            n=len(good),
            contexts=len({record.context_id for record in good}),
            errors=len(records) - len(good),
            official=self.interval(good, "official", task),
            strict=self.interval(good, "strict", task),
            nll=_nll(good),
            tokens=fmean(r.tokens for r in good) if good else math.nan,
            characters=fmean(r.characters for r in good) if good else math.nan,
            costs=costs(good),
        )

    def interval(self, records: Iterable[Record], rule: Rule, task: str) -> Interval | None:
        """The mean score of one task's samples; None without any."""
        values, contexts = scores(records, rule)
        return average(values, contexts, rho=self._rho[task, rule]) if values else None

    @cached_property
    def _rho(self) -> dict[tuple[str, Rule], float | None]:
        """How alike questions of one context are, per task: over all its cells, as few of them show it alone."""
        groups = [cell for cells in self.frame.groups.values() for cell in cells.items()]
        return {
            (task, rule): correlation([scores(records, rule) for (name, _), records in groups if name == task])
            for task in self.frame.tasks
            for rule in RULES
        }

    @cached_property
    def full_scores(self) -> dict[str, float]:
        """Per task: the full cache's mean over all lengths, by the official rule; the lowest where runs differ."""
        found: dict[str, float] = {}
        for column in self.frame.columns:
            if column.is_full:
                for task in self.frame.tasks:
                    values, _ = scores(self.task_records(task, column), "official")
                    if values:
                        found[task] = min(found.get(task, 1.0), fmean(values))
        return found

    @cached_property
    def likelihood(self) -> set[str]:
        """Tasks that generate nothing: their score is a share of tokens, which is no share of right answers."""
        return {task for (task, _, _), cell in self.cells.items() if cell.nll is not None}

    @cached_property
    def ranked(self) -> list[str]:
        """Tasks that count when plans are ranked; where the full cache was not run, every task that has answers."""
        good = [task for task in self.frame.tasks if self.full_scores.get(task, 1.0) >= RANKED_FROM]
        return [task for task in good if task not in self.likelihood]

    def unranked(self, task: str) -> str:
        """Why a task does not rank plans; nothing where it does."""
        if task in self.ranked:
            return ""
        if task in self.likelihood:
            return "measures likelihood, not answers"
        return f"the full cache scores {self.full_scores[task]:.0%}, below {RANKED_FROM:.0%}"

    def task_records(self, task: str, column: Column) -> list[Record]:
        """All samples of a task, over lengths."""
        groups = self.frame.groups[column]
        return [record for (name, _), records in groups.items() if name == task for record in records]

    @cached_property
    def shared(self) -> list[tuple[str, int]]:
        """Ranked tasks and lengths that every column has scores for: what means over tasks are taken over."""
        scored = [
            {(t, n) for t, n, c in self.cells if c == column and self.cells[t, n, c].n} for column in self.frame.columns
        ]
        common = set.intersection(*scored)
        return sorted((task, length) for task, length in common if task in set(self.ranked))

    def basis(self) -> str:
        """What overall scores are means over, in words."""
        tasks = len({task for task, _ in self.shared})
        of = f"{tasks} of {len(self.ranked)}" if tasks < len(self.ranked) else str(tasks)
        text = f"{of} ranked task{'' if of == '1' else 's'}"
        cells = {(task, length) for task, length, _ in self.cells if task in self.ranked}
        return text if len(self.shared) == len(cells) else f"{text}, at the lengths that every column has"

    def point(self, strata: Sequence[tuple[str, int]], column: Column, rule: Rule) -> Point | None:
        """The mean over tasks and lengths, each counting alike; None without any.

        Its interval is the bootstrap over contexts within each of them. Where none of them varies, Wilson's for as many
        trials as there are contexts.
        """
        drawn, means, n, contexts = [], [], 0, 0
        for task, length in strata:
            values, clusters = scores(self.frame.groups[column].get((task, length), []), rule)
            if not values:
                continue
            held = cluster(values, clusters)
            key = (task, length, column, rule)
            if key not in self._drawn:
                self._drawn[key] = resample(held, seed=zlib.crc32(f"{task}/{length}".encode()))
            means.append(held.mean)
            drawn.append(self._drawn[key])
            n, contexts = n + held.n, contexts + len(held.sizes)
        if not means:
            return None
        draws, mean = np.mean(drawn, axis=0), fmean(means)
        low, high = quantiles(draws, LEVEL) if np.ptp(draws) > 0 else wilson(mean * contexts, contexts)
        characters = fmean(self.cells[task, length, column].characters for task, length in strata)
        return Point(max(length for _, length in strata), characters, Interval(mean, low, high), draws, n, contexts)

    def overall(self, column: Column, rule: Rule, length: int | None = None) -> Point | None:
        """What ranks a column: its mean over everything shared, or over one length of it."""
        return self.point([s for s in self.shared if length in (None, s[1])], column, rule)

    def curve(self, task: str, column: Column, rule: Rule) -> list[Point]:
        """Score against length, of a task or of `ALL` ranked ones."""
        found = []
        for length in self.frame.lengths:
            if task == ALL:
                strata = [(name, length) for name in self._tasks_at(length)]
                point = self.point(strata, column, rule)
            else:
                point = self._task_point(task, length, column, rule)
            found += [point] if point else []
        return found

    def over_lengths(self, task: str, lengths: Sequence[int], column: Column, rule: Rule) -> Interval | None:
        """One task over several lengths, each counting alike; None without scores."""
        strata = [(task, length) for length in lengths if (task, length, column) in self.cells]
        if len({self.cells[task, length, column].n for _, length in strata}) == 1:
            groups = self.frame.groups[column]
            return self.interval([record for stratum in strata for record in groups[stratum]], rule, task)
        point = self.point(strata, column, rule)
        return point and point.score

    def _tasks_at(self, length: int) -> list[str]:
        """Ranked tasks that every column with scores at this length has: a column that ends early hides nothing."""
        scored: dict[Column, set[str]] = {}
        for (task, n, column), cell in self.cells.items():
            if n == length and cell.n:
                scored.setdefault(column, set()).add(task)
        common = set.intersection(*scored.values()) if scored else set[str]()
        return [task for task in self.ranked if task in common]

    def _task_point(self, task: str, length: int, column: Column, rule: Rule) -> Point | None:
        if not (cell := self.cells.get((task, length, column))) or not (interval := cell.score(rule)):
            return None
        point = self.point([(task, length)], column, rule)
        return point and point._replace(score=interval)

    def bins(self) -> int:
        """Of depth: ten, or five where ten would hold hardly a sample each."""
        sizes = [len({r.context_id for r in g}) for cells in self.frame.groups.values() for g in cells.values()]
        return 10 if sizes and median(sizes) >= 20 else 5

    def depths(self, task: str, column: Column, rule: Rule) -> list[Square]:
        """Score by depth and length, of a task or of `ALL` ranked ones pooled; empty where no sample has a depth."""
        bins, found = self.bins(), {}
        for (name, length), records in self.frame.groups[column].items():
            if name == task or (task == ALL and name in self.ranked):
                for record in records:
                    if record.depth is not None and record.status == "ok":
                        place = (length, min(bins - 1, int(record.depth * bins)))
                        found.setdefault(place, []).append(record)
        squares = []
        for (length, place), records in sorted(found.items()):
            values, contexts = scores(records, rule)
            if values:
                rho = self._rho.get((task, rule))
                squares.append(Square(length, place, len(values), average(values, contexts, rho=rho)))
        return squares

    def column_costs(self, column: Column, length: int | None = None) -> Costs:
        """Costs over the cells that rank a column: each cell counts alike, as in its score."""
        strata = [s for s in self.shared if length in (None, s[1])] or [
            s for s in self.frame.groups[column] if length in (None, s[1])
        ]
        each = [self.cells[task, n, column].costs for task, n in strata]
        peaks = [c.peak_bytes for c in each if c.peak_bytes is not None]
        mean = {
            name: _mean(getattr(c, name) for c in each)
            for name in (each.name for each in fields(Costs))
            if name != "peak_bytes"
        }
        return Costs(**mean, peak_bytes=max(peaks, default=None))


def scores(records: Iterable[Record], rule: Rule) -> tuple[list[float], list[Hashable]]:
    """-> the scores there are, and the context of each."""
    pairs = [(value, r.context_id) for r in records if r.status == "ok" and (value := getattr(r, rule)) is not None]
    return [float(value) for value, _ in pairs], [context for _, context in pairs]


def costs(records: Iterable[Record]) -> Costs:
    """Costs of samples; what belongs to a context counts once for it."""
    good = list(records)
    contexts = list({record.context_id: record for record in good}.values())
    peaks = [record.peak_bytes for record in contexts if record.peak_bytes is not None]
    first = [record.first_token_seconds for record in good if record.first_token_seconds is not None]
    speed = [record.tokens_per_second for record in good if record.tokens_per_second is not None]
    return Costs(
        held_bytes=_mean(record.held_bytes for record in contexts),
        full_bytes=_mean(record.full_bytes for record in contexts),
        peak_bytes=max(peaks, default=None),
        read_seconds=_mean(record.read_seconds for record in contexts),
        first_token_seconds=median(first) if first else None,
        tokens_per_second=median(speed) if speed else None,
        recall=_mean(fmean(record.recall) for record in good if record.recall),
        entries_read=_mean(record.entries_read for record in good),
        pairs=_mean(record.pairs for record in contexts),
    )


def front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which (cost, score) are on the Pareto front: no other is as cheap and as good, and better in one of the two."""
    return [not any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in points) for cost, score in points]


def _nll(records: Iterable[Record]) -> float | None:
    pairs = [(r.nll, r.scored_tokens or 1) for r in records if r.nll is not None]
    tokens = sum(count for _, count in pairs)
    return sum(nll * count for nll, count in pairs) / tokens if pairs else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
