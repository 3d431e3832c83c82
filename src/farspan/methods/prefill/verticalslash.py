"""Vertical-slash: the columns and diagonals that the end of a chunk attends to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from farspan.attention import Pattern, Sight
from farspan.errors import PlanError
from farspan.methods.prefill.base import Chunk, Prefill, check_band, joined
from farspan.registry import Paper
from farspan.signals import line_attention


@dataclass(frozen=True, kw_only=True)
class Verticalslash(Prefill):
    """See the keys and distances that the chunk's last `queries` queries attend to most, beside sinks and a window.

    Source: the vertical-slash heads of MInference (Jiang et al. 2024, section 3.2): attention of the last 64 queries,
    summed over each column and each diagonal, says where the others of the text will look. Here each chunk asks its
    own last queries, so a pattern follows the text; heads of a group share theirs, and all heads have the same numbers
    of `columns` and of diagonals, which come in `slashes` bands of `width` distances, because single diagonals cost as
    much as bands. The paper searches kind and numbers for each head, offline.
    """

    paper: ClassVar[Paper | None] = Paper("MInference", arxiv="2407.02490", section="3.2")

    columns: int = 1000
    slashes: int = 16
    width: int = 64
    sinks: int = 32
    window: int = 128
    queries: int = 64

    def check(self) -> None:
        """No numbers below none, no band without a distance, and somebody to ask."""
        check_band(self.sinks, self.window)
        for name, least in (("columns", 0), ("slashes", 0), ("width", 1), ("queries", 1)):
            if (value := getattr(self, name)) < least:
                raise PlanError(f"{name}={value}; give {least} or more")

    def pattern(self, chunk: Chunk) -> Pattern | None:
        """-> a sight for each head; nothing where a text is so short that all of it would be seen."""
        if max(self.columns + self.sinks, self.window) >= chunk.stop:
            return None
        asked = chunk.queries[:, -self.queries :]
        positions = torch.arange(chunk.stop - asked.shape[1], chunk.stop, dtype=torch.int32, device=asked.device)
        columns, diagonals = line_attention(chunk.held, asked, positions, chunk.scaling)
        bands = self._bands(diagonals)
        at = self._columns(columns)
        return Pattern(
            heads=tuple(
                Sight(window=self.window, sinks=self.sinks, columns=its, bands=band)
                for its, band in zip(at, bands, strict=True)
            )
        )

    def _columns(self, attention: Tensor) -> list[Tensor]:
        """attention [H, P] -> per head the positions of its best columns behind the sinks, ascending."""
        beyond = attention[:, self.sinks :]
        best = beyond.sort(descending=True, stable=True).indices[:, : self.columns]
        return list((best.sort().values + self.sinks).to(torch.int32))

    def _bands(self, attention: Tensor) -> list[tuple[tuple[int, int], ...]]:
        """attention [H, P] by distance -> per head its best bands beyond the window; neighbours are one."""
        beyond = attention[:, self.window :]
        count = -(-beyond.shape[1] // self.width)
        padded = torch.nn.functional.pad(beyond, (0, count * self.width - beyond.shape[1]))
        sums = padded.unflatten(1, (count, self.width)).sum(-1)
        best = sums.sort(descending=True, stable=True).indices[:, : self.slashes].sort().values
        return [
            joined([(self.window + i * self.width, self.window + (i + 1) * self.width) for i in its])
            for its in best.tolist()
        ]
