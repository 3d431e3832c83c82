"""DAM: masks of each head, taken from the map that was observed and extended beyond it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from farspan.attention import Pattern, Sight
from farspan.errors import PlanError
from farspan.methods.prefill.base import Chunk, Prefill, check_band, joined
from farspan.registry import Paper
from farspan.signals import add_diagonals, attention_blocks

LEAST = 1e-6  # attention below this is as good as none (the paper's stabiliser)
SEEN = 8  # a line of the map counts where the observed text holds 1/8 of a whole one: few pairs match by chance
QUERIES = 64  # at a time


@dataclass(frozen=True, kw_only=True)
class Dam(Prefill):
    """Read the first `capture` tokens densely, and go on with the columns and diagonals that each head showed there.

    Source: Zhang et al. 2025, "DAM": attention is amplified by a Box-Cox transformation with `exponent`, what reaches
    `threshold` of its range is a mask, and a column or diagonal belongs to a head if the mask covers `match` of it;
    beyond the observed length these lines go on. The paper averages maps over many texts, offline, and we observe the
    text itself: so masks follow the input, and an append is observed anew. Our reading of its published description.
    A head always sees `sinks` and a `window`. Texts no longer than `capture` are read densely.
    """

    paper: ClassVar[Paper | None] = Paper("DAM", arxiv="2506.11104", id=33)

    capture: int = 1024
    threshold: float = 0.1
    match: float = 0.9
    exponent: float = 0.5
    sinks: int = 4
    window: int = 64

    def check(self) -> None:
        """Shares are shares, and something is observed."""
        check_band(self.sinks, self.window)
        if self.capture < 1:
            raise PlanError(f"capture={self.capture} observes nothing; give 1 or more")
        for name in ("threshold", "match"):
            if not 0 < (value := getattr(self, name)) <= 1:
                raise PlanError(f"{name}={value} is no share; give more than 0, at most 1")
        if self.exponent < 0:
            raise PlanError(
                f"exponent={self.exponent} would turn strong attention into weak; give 0 (logarithm) or more"
            )

    @property
    def level(self) -> float:
        """The attention from which on a pair is in the mask: the threshold, taken back through the transformation."""
        if not self.exponent:
            return LEAST ** (1 - self.threshold)
        least = LEAST**self.exponent
        return (least + self.threshold * (1 - least)) ** (1 / self.exponent)

    def pattern(self, chunk: Chunk) -> Pattern | None:
        """-> nothing while a chunk is observed; then the same lines for every chunk."""
        if chunk.start < chunk.began + self.capture:
            self._observe(chunk)
            return None
        if "heads" not in chunk.memory:
            chunk.memory["heads"] = self._heads(chunk)
        return Pattern(heads=chunk.memory["heads"])

    def _observe(self, chunk: Chunk) -> None:
        """Count, in memory, how many pairs of each column and diagonal of the observed square reach the level."""
        if chunk.start == chunk.began:
            for name in ("columns", "diagonals"):
                chunk.memory[name] = torch.zeros(chunk.heads, self.capture, device=chunk.queries.device)
        end = min(chunk.stop, chunk.began + self.capture)
        for start in range(chunk.start, end, QUERIES):
            stop = min(start + QUERIES, end)
            asked = chunk.queries[:, start - chunk.start : stop - chunk.start]
            at = torch.arange(start, stop, dtype=torch.int32, device=asked.device)
            for piece, shares in attention_blocks(chunk.held, asked, at, chunk.scaling):
                keys = piece.positions.expand(shares.shape[0], -1).long() - chunk.began
                inside = (keys >= 0) & (keys < self.capture)
                mask = (shares >= self.level).float() * inside[:, None]
                columns, diagonals = (chunk.memory[name][piece.heads] for name in ("columns", "diagonals"))
                columns.scatter_add_(1, keys.clamp(0, self.capture - 1), mask.sum(1))
                add_diagonals(diagonals, mask, at - chunk.began, keys)

    def _heads(self, chunk: Chunk) -> tuple[Sight, ...]:
        """What each head sees, from what was counted."""
        lines = torch.arange(self.capture, 0, -1, device=chunk.queries.device)  # pairs of the square in each of them
        enough = lines * SEEN >= self.capture
        columns, diagonals = (enough & (chunk.memory[name] >= self.match * lines) for name in ("columns", "diagonals"))
        return tuple(
            Sight(window=self.window, sinks=self.sinks, columns=self._columns(its, chunk.began), bands=self._bands(far))
            for its, far in zip(columns, diagonals, strict=True)
        )

    def _columns(self, matched: Tensor, began: int) -> Tensor:
        at = matched.nonzero()[:, 0] + began
        return at[at >= self.sinks].to(torch.int32)

    def _bands(self, matched: Tensor) -> tuple[tuple[int, int], ...]:
        far = matched.nonzero()[:, 0].tolist()
        return joined((distance, distance + 1) for distance in far if distance >= self.window)
