"""Attention to fetched entries: of what is sealed only those that were chosen, of the open tail everything.

A selection may raise scores by log-weights: entries that were sampled count for those that were not (MagicPIG).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from farspan.attention.dense import naive
from farspan.attention.kernels import FewRows, partial_attention
from farspan.attention.merge import Index, Merger
from farspan.cache import Extent, entries_at

if TYPE_CHECKING:
    from farspan.attention.attend import Rows

Part = tuple[Tensor, Tensor, slice, Index]  # out [h, G, t, Dv], lse [h, G, t], which heads and which tokens


class Gather(NamedTuple):
    """Entries of one extent: `slots[h]` [n] int64, ascending and local to head h, their scores raised by
    `log_weights[h]` [n]; all entries where `slots` is None.
    """

    extent: Extent
    slots: tuple[Tensor, ...] | None = None
    log_weights: tuple[Tensor, ...] | None = None

    @property
    def empty(self) -> bool:
        """Whether no head reads anything of it."""
        return not (self.extent.offsets[-1] if self.slots is None else sum(its.numel() for its in self.slots))

    def brought(self) -> Gather:
        """The same entries, of an extent in memory where the extent's pages can be brought one by one."""
        if self.slots is None:
            return self
        extent, slots = self.extent.picked(self.slots)
        return self._replace(extent=extent, slots=slots)


class Chosen(NamedTuple):
    """What the new tokens start..stop of a sequence read of its extents; no entry twice."""

    start: int
    stop: int
    gathers: list[Gather]


class Chooser(Protocol):
    """What decides which held entries the new tokens of one sequence read, in one layer."""

    def choose(self, query: Tensor, scaling: float) -> Iterable[Chosen]:
        """query [Hq, T, D] of all new tokens -> what each run of them reads, every token in one run."""
        ...


Tails = Callable[["Rows", Tensor, float], Iterator[tuple[Tensor, Tensor, Index]]]


def attend(query: Tensor, rows: Sequence[Rows], scaling: float, few: FewRows | None, tails: Tails) -> Tensor:
    """query [Hq, ΣT, D] -> out [ΣT, Hq, Dv] in its dtype, as `attend.attend`, of rows that all fetch.

    `tails(row, grouped, scaling)` attends to one row's tail with torch, where no kernels for `few` query rows serve.
    """
    heads, size = rows[0].cache.tail.keys.shape[0], rows[0].cache.tail.values.shape[-1]
    grouped = query.unflatten(0, (heads, -1))
    merger = Merger(heads, grouped.shape[1], query.shape[1], size, query.device)
    parts: list[Any] = []
    left: list[Part] = []
    for row in rows:
        if few is not None:
            parts.append(_tail(row, few))
        else:  # the newest tokens first: every query sees itself, so no later merge meets two empty parts
            for out, lse, tokens in tails(row, grouped, scaling):
                merger.add(out, lse, slice(0, heads), tokens)
        for gather, tokens in _gathers(query, row, scaling):
            part = None if few is None else _known(gather, tokens, few)
            if part is not None:
                parts.append(part)
            elif few is not None:
                left.extend(_with_torch(grouped, gather, tokens, scaling))
            else:
                for each in _with_torch(grouped, gather, tokens, scaling):
                    merger.add(*each)
    if few is not None and not left:
        return few.attend(query, heads, size, scaling, parts, query.dtype, whole=True)[0]
    if few is not None:
        out, lse = few.attend(query, heads, size, scaling, parts, torch.float32)
        of_groups = out.transpose(0, 1).unflatten(0, (heads, -1)), lse.unflatten(0, (heads, -1))
        merger.add(*of_groups, slice(0, heads), slice(0, query.shape[1]))
    for each in left:
        merger.add(*each)
    return merger.finished(scaling, query.dtype)


def _gathers(query: Tensor, row: Rows, scaling: float) -> Iterator[tuple[Gather, slice]]:
    """-> what is read of the extents of a row, and by which tokens of the batch."""
    assert row.fetch is not None
    for chosen in row.fetch.choose(query[:, row.start : row.start + row.length], scaling):
        for gather in chosen.gathers:
            if not gather.empty:
                yield gather.brought(), slice(row.start + chosen.start, row.start + chosen.stop)


def _tail(row: Rows, few: FewRows) -> Any:
    tail = row.cache.tail
    return few.tail_part(tail.keys, tail.values, first_token=row.start, tokens=row.length, window=None)


def _known(gather: Gather, tokens: slice, few: FewRows) -> Any | None:
    known = few.part_of(gather.extent)
    if known is None:
        return None
    part = few.seen_by(known, tokens)
    return part if gather.slots is None else few.gathered(part, gather.slots, gather.log_weights)


def _with_torch(grouped: Tensor, gather: Gather, tokens: slice, scaling: float) -> Iterator[Part]:
    """Attention of grouped [H, G, T, D] at `tokens` to what is gathered, heads of equal numbers together."""
    asked = grouped[:, :, tokens]
    if gather.slots is None:
        for piece in gather.extent.pieces():
            part = partial_attention(asked[piece.heads], piece.keys, piece.values, scaling, None)
            yield *part, piece.heads, tokens
        return
    entries = entries_at(gather.extent, gather.slots)
    heads = len(entries)
    alike = len({keys.shape[0] for keys, _ in entries}) == 1
    for group in [slice(0, heads)] if alike else [slice(h, h + 1) for h in range(heads)]:
        keys, values = (torch.stack(column) for column in zip(*entries[group], strict=True))
        if not keys.shape[1]:
            continue
        if gather.log_weights is None:
            part = partial_attention(asked[group], keys, values, scaling, None)
        else:
            part = weighted(asked[group], keys, values, scaling, torch.stack(gather.log_weights[group]))
        yield *part, group, tokens


def weighted(query: Tensor, keys: Tensor, values: Tensor, scaling: float, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """As `partial_attention`, with the scores of entry n in head h raised by `log_weights[h, n]`, in float32."""
    return naive.attend_piece(query, keys, values, scaling, None, log_weights)
