"""Patterns as data: which keys the queries of a chunk see in one layer, in terms of positions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

Span = tuple[int, int]


class Chosen(NamedTuple):
    """Some of a layer's entries, by index: runs of them, and single ones [m]."""

    runs: list[slice]
    single: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Sight:
    """What one key-value head sees: the first `sinks` positions, the newest `window` (a query's own among them), the
    positions in `columns`, and those at a distance in one of `bands` from the query.

    `columns` is [n] int32, ascending. A band (near, far) holds the distances near..far-1; bands neither overlap nor
    reach into the window.
    """

    window: int
    sinks: int = 0
    columns: Tensor | None = None
    bands: tuple[Span, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what would leave a query without itself, or say a distance twice."""
        if self.window < 1 or self.sinks < 0:
            raise ValueError(f"window={self.window}, sinks={self.sinks}: a query sees itself at least")
        edge = self.window
        for near, far in self.bands:
            if not edge <= near < far:
                raise ValueError(f"the band {(near, far)} is empty or begins below {edge}, where others end")
            edge = far

    def sees(self, queries: Tensor, keys: Tensor) -> Tensor:
        """queries [T] at their positions, keys [n] at theirs -> [T, n] bool: the definition."""
        distance = queries[:, None] - keys
        seen = (distance < self.window) | (keys < self.sinks)
        for near, far in self.bands:
            seen |= (distance >= near) & (distance < far)
        if self.columns is not None:
            seen |= torch.isin(keys, self.columns)
        return seen & (distance >= 0)

    def pairs(self, first: int, last: int) -> int:
        """How many pairs of a query at first..last and a key that it sees there are, were every key held."""
        queries, spans = torch.arange(first, last + 1), ((0, self.window), *self.bands)
        count = int((queries + 1).clamp_max(self.sinks).sum())
        for near, far in spans:
            oldest = (queries - far + 1).clamp_min(self.sinks)
            count += int((queries - near - oldest + 1).clamp_min(0).sum())
        if self.columns is None:
            return count
        columns = self.columns[(self.columns >= self.sinks) & (self.columns <= last)].long().cpu()
        count += int((last + 1 - columns.clamp_min(first)).sum())
        for near, far in spans:  # what is seen as near or in a band counts once
            newest = (columns + far - 1).clamp_max(last)
            count -= int((newest - (columns + near).clamp_min(first) + 1).clamp_min(0).sum())
        return count

    def some(self, first: int, last: int, keys: Tensor) -> Chosen:
        """keys [n] at ascending positions -> those which some query at first..last sees."""
        spans = self._some(first, last)
        return _chosen(keys, spans, self._columns(0, last + 1, spans))

    def every(self, first: int, last: int, keys: Tensor) -> Chosen:
        """keys [n] at ascending positions -> older ones than `first`, all of which every query at first..last sees; but
        for sinks, which are few and stand apart: a window alone is one run, and nothing need be copied.
        """
        return _chosen(keys, self._every(first, last), self._columns(0, first, self._some(first, last)))

    def edges(self, first: int, last: int, keys: Tensor) -> Chosen:
        """keys [n] at ascending positions -> the rest of `some`, which each query sees in part: itself at least."""
        some = self._some(first, last)
        return _chosen(keys, _without(some, self._every(first, last)), self._columns(first, last + 1, some))

    def _some(self, first: int, last: int) -> list[Span]:
        """The ranges of positions, columns aside, that some query at first..last sees; disjoint and ascending."""
        bands = [(first - far + 1, last - near + 1) for near, far in reversed(self.bands)]
        return _united([(0, min(self.sinks, last + 1)), *bands, (first - self.window + 1, last + 1)])

    def _every(self, first: int, last: int) -> list[Span]:
        """The ranges of positions before `first`, sinks and columns aside, that every query at first..last sees."""
        bands = [(last - far + 1, first - near + 1) for near, far in reversed(self.bands)]
        return _united([*bands, (last - self.window + 1, first)])

    def _columns(self, start: int, stop: int, beside: list[Span]) -> Tensor | None:
        """The columns at start..stop-1 that are in none of these ranges."""
        if self.columns is None:
            return None
        wanted = self.columns[(self.columns >= start) & (self.columns < stop)]
        for low, high in beside:
            wanted = wanted[(wanted < low) | (wanted >= high)]
        return wanted

    def sees_all(self, last: int) -> bool:
        """Whether every query up to position `last` sees everything before it."""
        return max(self.window, self.sinks) > last


def _united(spans: list[Span]) -> list[Span]:
    """Ranges whose starts ascend, from the second on, as disjoint ones; none below position 0."""
    found: list[Span] = []
    for start, stop in ((max(0, a), b) for a, b in spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], stop))
        elif start < stop:
            found.append((start, stop))
    return found


def _without(spans: list[Span], taken: list[Span]) -> list[Span]:
    """What is left of disjoint ranges without others; both ascend."""
    left: list[Span] = []
    for start, stop in spans:
        for low, high in taken:
            if low < stop and high > start:
                if start < low:
                    left.append((start, low))
                start = max(start, high)
        if start < stop:
            left.append((start, stop))
    return left


def _chosen(keys: Tensor, spans: list[Span], columns: Tensor | None) -> Chosen:
    """Which of keys [n], at ascending positions, stand in ranges of positions and at single ones."""
    bounds = torch.tensor([edge for span in spans for edge in span], dtype=keys.dtype, device=keys.device)
    edges = torch.searchsorted(keys, bounds).tolist()
    runs = [slice(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]
    if columns is None or not columns.numel() or not keys.numel():
        return Chosen(runs, torch.empty(0, dtype=torch.int64, device=keys.device))
    found = torch.searchsorted(keys, columns).clamp_(max=keys.numel() - 1)
    return Chosen(runs, found[keys[found] == columns])


@dataclass(frozen=True, kw_only=True, eq=False)
class Pattern:
    """Which keys the queries of one chunk see in one layer.

    `heads` is what each key-value head sees, or one Sight for all of them; queries at position `dense_from` and later
    see everything. What is not held is not seen, whatever a pattern says; nor is what comes after the query.
    """

    heads: tuple[Sight, ...]
    dense_from: int | None = None

    def sight(self, head: int) -> Sight:
        """What one key-value head sees."""
        return self.heads[0 if len(self.heads) == 1 else head]

    def groups(self, heads: int, *, together: bool) -> Iterator[tuple[slice, Sight]]:
        """-> runs of key-value heads that see alike, head by head unless they may go `together`."""
        if together and len(self.heads) == 1:
            yield slice(0, heads), self.heads[0]
            return
        for head in range(heads):
            yield slice(head, head + 1), self.sight(head)

    def dense(self, position: int) -> Pattern:
        """The same pattern, with queries from `position` on seeing everything."""
        since = position if self.dense_from is None else min(position, self.dense_from)
        return replace(self, dense_from=since)

    def pairs(self, first: int, last: int) -> float:
        """How many pairs of a query at first..last and a key that it sees there are, mean over heads, were every key
        held.
        """
        since = last + 1 if self.dense_from is None else min(max(self.dense_from, first), last + 1)
        below = sum(sight.pairs(first, since - 1) for sight in self.heads) / len(self.heads)
        return below + dense_pairs(since, last)

    def sees_all(self, first: int, last: int) -> bool:
        """Whether queries at positions first..last see everything: as good as no pattern."""
        dense = self.dense_from is not None and self.dense_from <= first
        return dense or all(sight.sees_all(last) for sight in self.heads)


def dense_pairs(first: int, last: int) -> int:
    """How many pairs of a query at first..last and a key at its position or before there are."""
    return (first + last + 2) * (last - first + 1) // 2
