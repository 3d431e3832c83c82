"""Attention to pieces that were read apart: they are weighed together, sharpened, before they meet everything else.

Softmax over a union of sets is the average of the softmaxes over each, weighted by exp(lse). So the pieces can be
attended at a temperature of their own, and what they amount to changed, before they are merged with the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from farspan.attention.kernels import FewRows, partial_attention
from farspan.attention.merge import Index, Merger
from farspan.attention.scaling import at_temperature
from farspan.cache import Extent, Piece
from farspan.cache.pieces import Pieces

if TYPE_CHECKING:
    from farspan.attention.attend import Rows

Tails = Callable[["Rows", Tensor, float], Iterator[tuple[Tensor, Tensor, Index]]]
Run = tuple[int | None, slice, Tensor, Tensor]  # of which piece, which heads, keys [h, n, D], values [h, n, Dv]


def attend(query: Tensor, rows: Sequence[Rows], scaling: float, few: FewRows | None, tails: Tails) -> Tensor:
    """query [Hq, ΣT, D] -> out [ΣT, Hq, Dv] in its dtype, as `attend.attend`, of rows that all have pieces.

    `few` are the kernels for few query rows, where they serve; `tails(row, grouped, scaling)` attends to one tail.
    """
    out = query.new_empty(query.shape[1], query.shape[0], rows[0].cache.tail.values.shape[-1])
    for row in rows:
        span = slice(row.start, row.start + row.length)
        out[span] = _one(query[:, span], row._replace(start=0), scaling, few, tails)
    return out


def _one(query: Tensor, row: Rows, scaling: float, few: FewRows | None, tails: Tails) -> Tensor:
    rule = row.pieces
    assert rule is not None
    heads = row.cache.tail.keys.shape[0]
    grouped = query.unflatten(0, (heads, -1))
    chooses = 0 < rule.top < len(rule.ranges)

    group, tokens, size = grouped.shape[1], grouped.shape[2], row.cache.tail.values.shape[-1]

    def merger() -> Merger:
        return Merger(heads, group, tokens, size, query.device)

    rest, apart = merger(), [merger() for _ in (rule.ranges if chooses else rule.ranges[:1])]
    every = slice(0, tokens)
    for out, lse, some in tails(row, grouped, scaling):
        rest.add(out, lse, slice(0, heads), some)
    known: dict[int | None, list[Any]] = {}
    for extent in row.cache.extents:
        number, whole = _piece_of(extent, rule)
        part = few.part_of(extent) if few is not None and whole else None
        if few is not None and part is not None:
            known.setdefault(number if chooses or number is None else 0, []).append(few.seen_by(part, every))
            continue
        for its, some, keys, values in _runs(extent, rule):
            target, factor = _target(its, rest, apart, chooses, scaling, rule)
            target.add(*partial_attention(grouped[some], keys, values, factor, None), some, every)
    for number, parts in known.items():
        target, factor = _target(number, rest, apart, chooses, scaling, rule)
        assert few is not None
        out, lse = few.attend(query, heads, size, factor, parts, torch.float32)
        of_groups = out.transpose(0, 1).unflatten(0, (heads, -1)), lse.unflatten(0, (heads, -1))
        target.add(*of_groups, slice(0, heads), every)
    together = _best(apart, rest.lse, rule.top) if chooses else apart[0]
    rest.add(together.out, together.lse * (rule.scale * rule.temperature), slice(0, heads), every)
    return rest.finished(scaling, query.dtype)


def _target(
    number: int | None, rest: Merger, apart: list[Merger], chooses: bool, scaling: float, rule: Pieces
) -> tuple[Merger, float]:
    """Where a part belongs, and what its scores are multiplied with."""
    if number is None:
        return rest, scaling
    return apart[number if chooses else 0], at_temperature(scaling, rule.temperature)


def _best(apart: list[Merger], rest: Tensor, top: int) -> Merger:
    """The `top` pieces that get most of the attention of a token, all heads together, merged; `rest` [Hk, G, T] is the
    log-sum-exp of everything else that it sees.
    """
    amounts = torch.stack([each.lse for each in apart], -1)
    every = torch.logaddexp(amounts.logsumexp(-1), rest)
    votes = (amounts - every[..., None]).exp().sum((0, 1))  # [T, pieces]
    seen = torch.zeros_like(votes, dtype=torch.bool).scatter(-1, votes.topk(top, -1).indices, True)
    heads, group, tokens, size = apart[0].out.shape
    merged = Merger(heads, group, tokens, size, apart[0].out.device)
    for number, each in enumerate(apart):
        lse = each.lse.masked_fill(~seen[..., number], -torch.inf)
        merged.add(each.out, lse, slice(0, heads), slice(0, tokens))
    return merged


def _piece_of(extent: Extent, rule: Pieces) -> tuple[int | None, bool]:
    """-> the piece that all entries of an extent belong to (None: to none), and whether there is one such answer."""
    edges = [edge for pair in rule.ranges for edge in pair]
    first, last = (sum(edge <= token for edge in edges) for token in (extent.first, extent.last))
    return first // 2 if first % 2 else None, first == last or extent.last < extent.first


def _runs(extent: Extent, rule: Pieces) -> Iterator[Run]:
    """An extent's entries, piece by piece: tokens ascend in every head, so each piece has a run of them."""
    for piece in extent.pieces():
        edges = torch.tensor([edge for pair in rule.ranges for edge in pair], device=piece.positions.device)
        cuts = torch.searchsorted(piece.positions.contiguous(), edges.expand(piece.positions.shape[0], -1).contiguous())
        if bool((cuts == cuts[:1]).all()):
            yield from _cut(piece, piece.heads, cuts[0].tolist())
            continue
        for head, its in enumerate(cuts.tolist()):
            at = piece.heads.start + head
            alone = Piece(slice(at, at + 1), *(t[head : head + 1] for t in piece[1:4]), led=piece.led)
            yield from _cut(alone, alone.heads, its)


def _cut(piece: Piece, heads: slice, cuts: list[int]) -> Iterator[Run]:
    edges = [0, *cuts, piece.keys.shape[1]]
    for segment, (a, b) in enumerate(pairwise(edges)):
        if b > a:
            number = segment // 2 if segment % 2 else None
            yield number, heads, piece.keys[:, a:b], piece.values[:, a:b]
