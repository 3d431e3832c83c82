"""Pages of a block that lies elsewhere: what holds a few entries can be brought without the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from farspan.cache.block import Block, Paging, block_from_tensors

Run = tuple[int, int]
Rows = Callable[[str, Sequence[Run]], Tensor]  # a tensor's name and runs of rows -> these rows of it


@dataclass(frozen=True)
class Pages:
    """A block's pages, head after head; `offsets` are the extent's."""

    paging: Paging
    offsets: tuple[int, ...]

    @classmethod
    def of(cls, block: Block, offsets: tuple[int, ...]) -> Pages | None:
        """None for a kind of block that only comes whole."""
        paging = getattr(block, "paging", None)
        return None if paging is None else cls(paging(), offsets)

    @property
    def counts(self) -> tuple[int, ...]:
        """Entries of each head."""
        return tuple(b - a for a, b in pairwise(self.offsets))

    def every(self) -> list[Tensor]:
        """All pages of each head."""
        return [torch.arange(-(-count // self.paging.size)) for count in self.counts]

    def numbers(self, pages: Sequence[Tensor]) -> Tensor:
        """Pages of each head -> their numbers among all pages of the block."""
        firsts = accumulate((its.numel() for its in self.every()), initial=0)
        return torch.cat([first + its for first, its in zip(firsts, pages, strict=False)])

    def rows(self, name: str, pages: Sequence[Tensor]) -> list[Run]:
        """Which rows of a tensor each page of each head has."""
        if name in self.paging.per_page:
            return [(number, number + 1) for number in self.numbers(pages).tolist()]
        size = self.paging.size
        return [
            (start + page * size, min(start + (page + 1) * size, stop))
            for (start, stop), its in zip(pairwise(self.offsets), pages, strict=True)
            for page in its.tolist()
        ]

    def taken(self, pages: Sequence[Tensor]) -> tuple[int, ...]:
        """How many entries these pages hold, head by head."""
        size = self.paging.size
        return tuple(
            int((count - its * size).clamp(max=size).sum()) for count, its in zip(self.counts, pages, strict=True)
        )

    def block(
        self, kind: str, names: Sequence[str], data: Mapping[str, Any], pages: Sequence[Tensor], rows: Rows
    ) -> Block:
        """A block of the same kind that holds just these pages."""
        tensors = {name: rows(name, self.rows(name, pages)) for name in names}
        counts = {"counts": list(self.taken(pages))} if "counts" in data else {}
        return block_from_tensors(kind, tensors, {**data, **counts})


class Paged(NamedTuple):
    """An extent's block elsewhere, page by page: `bring(pages of each head)` gives one of just these."""

    pages: Pages
    bring: Callable[[Sequence[Tensor]], Block]


def joined(runs: Sequence[Run]) -> Iterator[Run]:
    """Runs of rows, those that meet as one."""
    start, stop = 0, 0
    for a, b in runs:
        if a == stop and b > a:
            stop = b
            continue
        if stop > start:
            yield start, stop
        start, stop = a, b
    if stop > start:
        yield start, stop
