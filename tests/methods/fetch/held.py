"""Entries, queries and selections for tests of methods that fetch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from farspan.methods.fetch.base import Asked, Candidates, Fetch, Sealed, Selection


def held(
    keys: Tensor,
    method: Fetch | None = None,
    *,
    start: int = 0,
    first: Sequence[int] | None = None,
    stop: Sequence[int] | None = None,
    noted: dict[str, Tensor] | None = None,
) -> Candidates:
    """keys [h, N, D] at positions from `start` on, indexed by the method; all are candidates unless said otherwise."""
    heads, entries = keys.shape[:2]
    positions = torch.arange(start, start + entries, dtype=torch.int32).expand(heads, -1)
    sealed = Sealed(layer=0, keys=keys, positions=positions, noted=noted or {})
    return Candidates(
        index={} if method is None else method.index(sealed),
        first=first or [0] * heads,
        stop=stop or [entries] * heads,
        positions=positions,
        unpacked=lambda: keys,
    )


def asked(queries: Tensor, *, scaling: float = 1.0, anyway: Tensor | None = None, **more: Any) -> Asked:
    """queries [h, G, t, D]; nothing is read anyway unless said otherwise."""
    nothing = torch.full(queries.shape[:3], -torch.inf)
    given = {"layer": 0, "reading": False, "memory": {}, **more}
    return Asked(
        queries=queries,
        positions=torch.arange(1000, 1000 + queries.shape[2], dtype=torch.int32),
        scaling=scaling,
        anyway=lambda: nothing if anyway is None else anyway,
        **given,
    )


def positions_of(selections: Sequence[Selection], extents: Sequence[Candidates]) -> list[list[int]]:
    """Per head, the positions that were selected, of all extents."""
    heads = range(extents[0].positions.shape[0])
    return [
        [
            int(p)
            for selection, each in zip(selections, extents, strict=True)
            for p in each.positions[head][(selection.slots or ())[head]]
        ]
        for head in heads
    ]
