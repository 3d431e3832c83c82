"""Blocks of consecutive entries: cut from an extent, scored, and the best of them as entries again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from farspan.methods.fetch._choosing import same_tokens, top
from farspan.methods.fetch.base import Candidates, Selection


def pages(entries: Tensor, page: int, fill: float) -> Tensor:
    """entries [h, N, ...] -> [h, pages, page, ...], the last one filled up."""
    short = -entries.shape[1] % page
    padded = F.pad(entries, (*[0, 0] * (entries.ndim - 2), 0, short), value=fill) if short else entries
    return padded.unflatten(1, (-1, page))


def top_pages(scores: Sequence[Tensor], held: Sequence[Candidates], page: int, k: int) -> list[Selection]:
    """scores [h, pages] of each extent, changed in place -> the k // page best pages with a candidate in them."""
    for each, its in zip(held, scores, strict=True):
        for head, (first, stop) in enumerate(zip(each.first, each.stop, strict=True)):
            its[head, : first // page] = -torch.inf
            its[head, -(-stop // page) :] = -torch.inf
            if first >= stop:
                its[head] = -torch.inf
    return expanded(top(scores, k // page), held, page)


def expanded(chosen: Sequence[Selection], held: Sequence[Candidates], page: int) -> list[Selection]:
    """Selected pages -> their entries, of candidates alone."""
    selections = []
    for selection, each in zip(chosen, held, strict=True):
        assert selection.slots is not None
        bounds = zip(selection.slots, each.first, each.stop, strict=True)
        selections.append(Selection(tuple(_entries(its, page, first, stop) for its, first, stop in bounds)))
    return selections


def _entries(blocks: Tensor, page: int, first: int, stop: int) -> Tensor:
    slots = (blocks[:, None] * page + torch.arange(page, device=blocks.device)).flatten()
    if not slots.numel() or (int(slots[0]) >= first and int(slots[-1]) < stop):
        return slots
    return slots[(slots >= first) & (slots < stop)]


def jointly(scores: Sequence[Tensor], held: Sequence[Candidates]) -> list[Tensor]:
    """scores [h, blocks] of each extent -> the same for all heads, their sum; as they are where heads differ."""
    if not all(same_tokens(each) for each in held):
        return list(scores)
    return [its.sum(0, keepdim=True).repeat(its.shape[0], 1) for its in scores]
