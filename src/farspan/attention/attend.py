"""Attention of a packed batch over what each of its sequences holds.

Queries come as [1, ΣT]: the new tokens of several sequences, one after the other. Extents that several sequences
share (forks of one context) are attended once for all of them: their queries are gathered, so a prefix is read
once however many questions are asked of it (Hydragen; Juravsky et al. 2024).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from farspan.attention import apart, fetched, kernels, native, patterned, sighted
from farspan.attention.fetched import Chooser
from farspan.attention.kernels import FewRows, partial_attention
from farspan.attention.merge import Index, Merger
from farspan.attention.pattern import Pattern, Sight
from farspan.attention.sighted import Held
from farspan.attention.standing import Standing
from farspan.cache import DenseBlock, Extent, LayerCache
from farspan.cache.pieces import Pieces

Shared = tuple[Extent, Index, int]
"""An extent, the batch rows that see it, and the lowest position among them."""


class Led(NamedTuple):
    """How another layer asked in this pass: queries [Hq, T, D] of one sequence's new tokens, and their scaling."""

    query: Tensor
    scaling: float


class Rows(NamedTuple):
    """One sequence's share of a packed batch: its layer cache, whose tail already ends with the `length` new tokens,
    which stand at rows start..start+length of the batch. A pattern says which entries they see; without one, all.
    """

    cache: LayerCache
    start: int
    length: int
    pattern: Pattern | None = None
    fetch: Chooser | None = None
    """What chooses the entries to read, where not all are."""
    pieces: Pieces | None = None
    """How pieces that were read apart are weighed, where not like anything else."""
    led: Led | None = None
    """How the layer asked whose keys this one's extents have, where they have none."""


def attend(query: Tensor, rows: list[Rows], scaling: float) -> Tensor:
    """query [Hq, ΣT, D] (new tokens of all sequences) -> out [ΣT, Hq, Dv] in the query's dtype.

    A token sees its own sequence's entries at positions up to its own and, where the layer has a window of W
    tokens, above its own minus W; under a pattern, what that shows of it.
    """
    if any(row.pattern is not None for row in rows):
        return _patterned(query, rows, scaling)
    routes = [_route(query, row, scaling) for row in rows]
    if len(set(routes)) > 1:  # a sequence goes the way it would go alone, whatever it is packed with
        return _apart(query, rows, routes, scaling)
    few, many, fetches, weighs = routes[0]
    if weighs:
        return apart.attend(query, rows, scaling, few, _tail_parts)
    if fetches:
        return fetched.attend(query, rows, scaling, few, _tail_parts)
    heads = rows[0].cache.tail.keys.shape[0]
    size = rows[0].cache.tail.values.shape[-1]
    if few:
        parts, left = _parts(query, rows, few)
        dtype = torch.float32 if left else query.dtype
        out, lse = few.attend(query, heads, size, scaling, parts, dtype, whole=not left)
    else:
        out, lse, left = _each(query, rows, scaling) if many else (None, None, list(_shared_extents(rows)))
    if out is not None and not left:
        return out
    grouped = query.view(heads, query.shape[0] // heads, *query.shape[1:])
    if out is not None and lse is not None:
        of_groups = out.transpose(0, 1).unflatten(0, (heads, -1)), lse.unflatten(0, (heads, -1))
        merger = Merger.of([(*of_groups, slice(0, query.shape[1]))])
    else:
        merger = _tails(rows, grouped, scaling)
    for extent, tokens, last_query in left:
        assert extent.last <= last_query, "sealed entries are older than every query"
        led = None if extent.follows is None else _leading(rows, extent, heads)
        for piece in extent.pieces():
            if piece.led:
                assert led is not None, "a layer asks before those that follow it"
                asked, factor = led.query[piece.heads], led.scaling
            else:
                asked, factor = grouped[piece.heads][:, :, tokens], scaling
            out, lse = partial_attention(asked, piece.keys, piece.values, factor, None)
            merger.add(out, lse, piece.heads, tokens)
    return merger.finished(scaling, query.dtype)


def _each(query: Tensor, rows: list[Rows], scaling: float) -> tuple[Tensor, Tensor, list[Shared]]:
    """Many new tokens of each sequence to its tail and those extents that `sighted` takes, in one call each -> out
    [ΣT, Hq, Dv] in the query's dtype, lse [Hq, ΣT], and the extents that are left.
    """
    heads, size = rows[0].cache.tail.keys.shape[0], rows[0].cache.tail.values.shape[-1]
    out = query.new_empty(query.shape[1], query.shape[0], size)
    lse = query.new_empty(query.shape[:2], dtype=torch.float32)
    every = list(_shared_extents(rows))
    assert all(extent.last <= lowest for extent, _, lowest in every), "sealed entries are older than every query"
    known = {id(its[0]): part for its in every if (part := sighted.part(its[0])) is not None}
    left = [its for its in every if id(its[0]) not in known]
    for row in rows:
        tail, window, span = row.cache.tail, row.cache.window, slice(row.start, row.start + row.length)
        its = lse.new_empty(heads, query.shape[0] // heads, row.length)
        sighted.attend(
            query[:, span].unflatten(0, (heads, -1)),
            tail.last - row.length + 1,
            [Held(tail.keys, tail.values, tail.positions())],
            sighted.EVERYTHING if window is None else Sight(window=window),
            scaling,
            out[span].unflatten(1, (heads, -1)),
            parts=[known[id(extent)] for extent in row.cache.extents if id(extent) in known],
            lse=its,
            whole=not left,
        )
        lse[:, span] = its.flatten(0, 1)
    return out, lse, left


def _leading(rows: list[Rows], extent: Extent, heads: int) -> Led:
    """How the layer that an extent follows asked, for all the tokens that see it: queries [Hk, G, t, D]."""
    asking = [row.led for row in rows if row.led is not None and any(its is extent for its in row.cache.extents)]
    query = torch.cat([led.query for led in asking], dim=1)
    return Led(query.unflatten(0, (heads, -1)), asking[0].scaling)


def standing(query: Tensor, rows: list[Rows]) -> Standing | None:
    """`attend` of these rows at this token and later ones, whose patterns, choices and pieces stay none; None where
    one call of the C++ kernels does not do, or what it reads is only brought for it.
    """
    plain = all(row.pattern is None and row.fetch is None and row.pieces is None for row in rows)
    few = {_route(query, row).few for row in rows} if plain else {None}
    if few != {native} or not all(extent.kept for row in rows for extent in row.cache.extents):
        return None
    parts, left = _parts(query, rows, native)
    if left:
        return None
    heads, size = rows[0].cache.tail.keys.shape[0], rows[0].cache.tail.values.shape[-1]
    return Standing(native.Ready(query, heads, size, parts, query.dtype), [row.cache for row in rows])


class _Route(NamedTuple):
    """How a sequence's new tokens are attended: by the kernels for few query rows, where they are few enough, or by the
    one for many, where they are many and the machine has it; and whether it fetches, or weighs pieces.
    """

    few: FewRows | None
    many: bool
    fetches: bool
    weighs: bool


def _route(query: Tensor, row: Rows, scaling: float = 1.0) -> _Route:
    tail, fetches, weighs = row.cache.tail, row.fetch is not None, row.pieces is not None
    its = query, row.length, tail.keys, tail.values
    many = not (fetches or weighs) and kernels.many_rows(*its, scaling)
    return _Route(None if many else kernels.few_rows(*its), many, fetches, weighs)


def _patterned(query: Tensor, rows: list[Rows], scaling: float) -> Tensor:
    """`attend` where some sequences have a pattern: those of their tokens that it concerns, then all the others."""
    out = query.new_empty(query.shape[1], query.shape[0], rows[0].cache.tail.values.shape[-1])
    rest, spans = [], []
    for row in rows:
        first, sparse = row.cache.tail.last - row.length + 1, 0
        if row.pattern is not None:
            since = row.pattern.dense_from
            sparse = row.length if since is None else min(max(0, since - first), row.length)
        if row.pattern is not None and sparse:
            span = slice(row.start, row.start + sparse)
            patterned.attend(query[:, span], first, row.cache, row.pattern, scaling, out[span])
        if sparse < row.length:
            at = sum(len(s) for s in spans)
            rest.append(row._replace(start=at, length=row.length - sparse, pattern=None))
            spans.append(torch.arange(row.start + sparse, row.start + row.length, device=query.device))
    if rest:
        index = torch.cat(spans)
        out[index] = attend(query[:, index], rest, scaling)
    return out


def _apart(query: Tensor, rows: list[Rows], routes: list[_Route], scaling: float) -> Tensor:
    """`attend` of the sequences of each route by themselves."""
    out = query.new_empty(query.shape[1], query.shape[0], rows[0].cache.tail.values.shape[-1])
    for route in dict.fromkeys(routes):
        chosen = [row for row, its in zip(rows, routes, strict=True) if its == route]
        index = _token_index(chosen)
        start, alone = 0, []
        for row in chosen:
            alone.append(row._replace(start=start))
            start += row.length
        out[index] = attend(query[:, index], alone, scaling)
    return out


def _parts(query: Tensor, rows: list[Rows], few: FewRows) -> tuple[list[Any], list[Shared]]:
    """What one call attends to, tails and extents, and the extents that are left to torch: those that the kernels do
    not know, and dense ones that so many sequences share that their queries are no longer few.
    """
    extents = list(_shared_extents(rows))
    parts = [
        few.tail_part(
            row.cache.tail.keys,
            row.cache.tail.values,
            first_token=row.start,
            tokens=row.length,
            window=row.cache.window,
        )
        for row in rows
    ]
    left = []
    for extent, tokens, lowest in extents:
        assert extent.last <= lowest, "sealed entries are older than every query"
        known = few.part_of(extent)
        if known is None or (len(rows) > 1 and isinstance(extent.block, DenseBlock) and _many(query, tokens, rows[0])):
            left.append((extent, tokens, lowest))
        else:
            parts.append(few.seen_by(known, tokens))
    return parts, left


def _many(query: Tensor, tokens: Index, row: Rows) -> bool:
    count = tokens.stop - tokens.start if isinstance(tokens, slice) else tokens.numel()
    return kernels.few_rows(query, count, row.cache.tail.keys, row.cache.tail.values) is None


def _tails(rows: list[Rows], grouped: Tensor, scaling: float) -> Merger:
    """Attention of all new tokens to the open tails: to themselves first, and then to what is older."""
    newest, older, reached = [], [], 0
    for row in rows:
        for part in _tail_parts(row, grouped, scaling):
            (newest if part[2].start == reached else older).append(part)
            reached = part[2].stop
    merger = Merger.of(newest)
    for out, lse, tokens in older:
        merger.add(out, lse, slice(0, grouped.shape[0]), tokens)
    return merger


def _tail_parts(row: Rows, grouped: Tensor, scaling: float) -> Iterator[tuple[Tensor, Tensor, slice]]:
    """Attention of one sequence's new tokens to its open tail, which they end; to themselves first."""
    tail, new = row.cache.tail, row.length
    asked = grouped[:, :, row.start : row.start + new]
    old, window = len(tail) - new, row.cache.window
    tokens = slice(row.start, row.start + new)
    keys, values = tail.keys, tail.values
    if window is not None and len(tail) >= window:
        for lo in range(0, new, window):  # slices of queries, so that the mask stays W×2W
            hi = min(lo + window, new)
            oldest, newest = max(0, old + lo - window + 1), old + hi
            q = torch.arange(old + lo, newest, device=keys.device)[:, None]
            k = torch.arange(oldest, newest, device=keys.device)[None]
            visible = (k <= q) & (k > q - window)
            span = slice(oldest, newest)
            part = partial_attention(asked[:, :, lo:hi], keys[:, span], values[:, span], scaling, visible)
            yield *part, slice(row.start + lo, row.start + hi)
        return
    if new == 1:
        yield *partial_attention(asked, keys, values, scaling, None), tokens
        return
    yield *partial_attention(asked, keys[:, old:], values[:, old:], scaling, None, causal=True), tokens
    if old:
        yield *partial_attention(asked, keys[:, :old], values[:, :old], scaling, None), tokens


def _shared_extents(rows: list[Rows]) -> Iterator[Shared]:
    """-> every distinct extent once."""
    holders: dict[int, list[Rows]] = {}
    extents: dict[int, Extent] = {}
    for row in rows:
        for extent in row.cache.extents:
            extents[id(extent)] = extent
            holders.setdefault(id(extent), []).append(row)
    for key, extent in extents.items():
        held_by = holders[key]
        lowest = min(r.cache.tail.last - r.length + 1 for r in held_by)
        yield extent, _token_index(held_by), lowest


def _token_index(held_by: list[Rows]) -> Index:
    """A slice where the sequences stand side by side, else the row numbers."""
    adjacent = all(a.start + a.length == b.start for a, b in pairwise(held_by))
    if adjacent:
        return slice(held_by[0].start, held_by[-1].start + held_by[-1].length)
    spans = [torch.arange(r.start, r.start + r.length) for r in held_by]
    return torch.cat(spans).to(held_by[0].cache.tail.keys.device)
