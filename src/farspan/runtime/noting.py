"""What is noted of entries while they are new, for indices: how much later queries asked for them, and surprisal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from farspan.cache import Extent, LayerCache


@dataclass
class Notes:
    """Notes of one read or one turn, by position from `began` on; nothing is known of earlier entries."""

    window: int
    asked: dict[int, Tensor] = field(default_factory=dict)
    """[H, n] float32 by layer."""
    surprisal: Tensor | None = None
    """[n] float32, the same for all layers; NaN for a token that nothing predicted."""
    began: int | None = None

    def ask(self, layer: LayerCache, queries: Tensor, start: int, scaling: float, keys: Callable[..., Tensor]) -> None:
        """The queries [Hq, T, D] of the tokens from position `start` on have come: add what they ask of the `window`
        tokens before each of them. `keys(extent, heads)` gives [h, N, D].

        The sum of a run of queries is the difference of two running sums, so this costs N products and not N·T.
        """
        tail = layer.tail
        heads, end = tail.keys.shape[0], start + queries.shape[1]
        mean = queries.unflatten(0, (heads, -1)).float().mean(1) * (scaling / self.window)
        sums = torch.cat([mean.new_zeros(heads, 1, mean.shape[-1]), mean.cumsum(1)], 1)
        known = self._grown(layer.index, heads, start, end)
        oldest = max(start - self.window, self.began or 0)
        first = max(oldest, tail.first)
        self._add(known, sums, tail.keys[:, first - tail.first :], torch.arange(first, end), start)
        for extent in layer.extents:
            if extent.last >= oldest and extent.index is None:
                for head in range(heads):
                    its = slice(head, head + 1)
                    recent = extent.head_positions(head) >= oldest
                    positions = extent.head_positions(head)[recent].long()
                    self._add(known[its], sums[its], keys(extent, its)[:, recent], positions, start)

    def _add(self, known: Tensor, sums: Tensor, keys: Tensor, positions: Tensor, start: int) -> None:
        """known [h, n], sums [h, T + 1, D], keys [h, N, D] at positions [N] that are not before `began`."""
        low = (positions + 1 - start).clamp_min(0)
        high = (positions + 1 + self.window - start).clamp_max(sums.shape[1] - 1)
        asked = ((sums[:, high] - sums[:, low]) * keys.float()).sum(-1)
        known[:, positions - (self.began or 0)] += asked.masked_fill(high <= low, 0.0)

    def _grown(self, layer: int, heads: int, start: int, end: int) -> Tensor:
        self.began = start if self.began is None else self.began
        known = self.asked.get(layer)
        before = 0 if known is None else known.shape[1]
        more = torch.zeros(heads, end - self.began - before)
        self.asked[layer] = more if known is None else torch.cat([known, more], 1)
        return self.asked[layer]

    def surprise(self, start: int, surprisal: Tensor) -> None:
        """Note -log p [T] of the tokens from position `start` on."""
        self.began = start if self.began is None else self.began
        before = self.surprisal if self.surprisal is not None else surprisal[:0]
        gap = surprisal.new_full((start - self.began - before.numel(),), torch.nan)
        self.surprisal = torch.cat([before, gap, surprisal])

    def of(self, name: str, layer: int, extent: Extent, heads: slice) -> Tensor:
        """-> [h, N] float32 of an extent's entries: zero, or NaN for surprisal, where nothing was noted."""
        rows = []
        for head in range(heads.start, heads.stop):
            positions = extent.head_positions(head).long() - (self.began or 0)
            if name == "asked":
                rows.append(_at(self.asked[layer][head] if layer in self.asked else torch.empty(0), positions, 0.0))
            else:
                rows.append(_at(torch.empty(0) if self.surprisal is None else self.surprisal, positions, torch.nan))
        return torch.stack(rows)


def _at(known: Tensor, positions: Tensor, otherwise: float) -> Tensor:
    """known [n] at positions [N], of which some may not be in it."""
    inside = (positions >= 0) & (positions < known.numel())
    found = torch.full((positions.numel(),), otherwise)
    found[inside] = known[positions[inside]].float()
    return found
