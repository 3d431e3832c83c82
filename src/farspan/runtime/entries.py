"""The entries that a decision may touch: gathered head by head, and put back as one extent of what stays.

Open are a layer's extents from `sealed` on, then its tail. Per-entry state lies in `layer.state[name]` as one float32
tensor, head after head over all that each head holds; what has not been observed yet is not there and counts as zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from farspan.cache import DenseBlock, Extent, LayerCache


class Held(NamedTuple):
    """What heads `first`.. of equal length hold: keys [h, n, D], values [h, n, Dv], positions [h, n] int32, and the
    state of these entries, [h, n] float32 by name.
    """

    first: int
    keys: Tensor
    values: Tensor
    positions: Tensor
    state: Mapping[str, Tensor]

    @property
    def heads(self) -> slice:
        """Which key-value heads of the layer these are."""
        return slice(self.first, self.first + self.keys.shape[0])

    @property
    def nbytes(self) -> int:
        """Bytes of keys, values and positions, copied or lent."""
        return self.keys.nbytes + self.values.nbytes + self.positions.nbytes


def open_counts(layer: LayerCache) -> list[int]:
    """-> open entries per head."""
    heads = layer.tail.keys.shape[0] if len(layer.tail) else layer.extents[-1].heads
    counts = [len(layer.tail)] * heads
    for extent in layer.extents[layer.sealed :]:
        counts = [a + b for a, b in zip(counts, extent.counts, strict=True)]
    return counts


def gather(layer: LayerCache, names: Sequence[str] = ()) -> list[Held]:
    """-> the open entries: all heads together where they hold equal numbers in every extent and none is pruned, else
    head by head. A tail alone is lent, anything else is copied.
    """
    counts = open_counts(layer)
    alike = not layer.pruned and all(extent.uniform for extent in layer.extents[layer.sealed :])
    groups = [slice(0, len(counts))] if alike else [slice(h, h + 1) for h in range(len(counts))]
    state = {name: _state_by_head(layer, name, counts) for name in names}
    return [
        Held(group.start, *_gather(layer, group), {name: torch.stack(heads[group]) for name, heads in state.items()})
        for group in groups
    ]


def write_state(layer: LayerCache, held: Sequence[Held], kept: Sequence[Tensor] | None = None) -> None:
    """Put the state of these open entries back, after what is sealed before them; of `kept[head]` only, if given, and
    none of pruned heads.
    """
    for name in held[0].state:
        new = [head for group in held for head in group.state[name]]
        new = [values[:0] if head in layer.pruned else values for head, values in enumerate(new)]
        closed = _closed_state(layer, name, len(new))
        if kept is not None:
            new = [head.index_select(0, index) for head, index in zip(new, kept, strict=True)]
        layer.state[name] = torch.cat([part for pair in zip(closed, new, strict=True) for part in pair])


def select_state(layer: LayerCache, stays: Sequence[Tensor]) -> None:
    """Keep of every state what belongs to the entries that stay: `stays[head]` [n] bool over all that a head holds."""
    for name in layer.state:
        stored, covered = _stored_state(layer, name, len(stays))
        layer.state[name] = torch.cat([v[mask[:n]] for v, mask, n in zip(stored, stays, covered, strict=True)])


def whole_state(layer: LayerCache, name: str, heads: int) -> list[Tensor]:
    """-> per head the state of all that it holds, zero where nothing was observed."""
    stored, covered = _stored_state(layer, name, heads)
    held = layer.held(heads)
    return [torch.cat([s, s.new_zeros(n - c)]) for s, c, n in zip(stored, covered, held, strict=True)]


def extent_of(held: Sequence[Held], kept: Sequence[Tensor]) -> Extent:
    """The kept entries, copied out head after head, so that the rest can be freed."""
    heads = [(k[h], v[h], p[h]) for _, k, v, p, _ in held for h in range(k.shape[0])]
    keys, values, positions = (
        torch.cat([entries.index_select(0, index) for entries, index in zip(column, kept, strict=True)])
        for column in zip(*heads, strict=True)
    )
    offsets = tuple(accumulate((index.numel() for index in kept), initial=0))
    return Extent(DenseBlock(keys, values), positions, offsets, shared=False)


def _gather(layer: LayerCache, heads: slice) -> tuple[Tensor, Tensor, Tensor]:
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for extent in layer.extents[layer.sealed :]:
        keys, values, positions = (_of_heads(t, extent, heads) for t in extent.entries())
        parts.append((keys, values, positions))
    if len(layer.tail):
        positions = layer.tail.positions().expand(heads.stop - heads.start, -1)
        parts.append((layer.tail.keys[heads], layer.tail.values[heads], positions))
    if len(parts) == 1:
        return parts[0]
    keys, values, positions = (torch.cat(column, 1) for column in zip(*parts, strict=True))
    return keys, values, positions


def _of_heads(entries: Tensor, extent: Extent, heads: slice) -> Tensor:
    """[E, ..] head after head -> [h, N, ..] of heads of equal length; a view where all heads are."""
    if extent.uniform:
        return entries.unflatten(0, (extent.heads, -1))[heads]
    spans = (slice(extent.offsets[h], extent.offsets[h + 1]) for h in range(heads.start, heads.stop))
    return torch.stack([entries[span] for span in spans])


def _stored_state(layer: LayerCache, name: str, heads: int) -> tuple[Sequence[Tensor], list[int]]:
    """-> the state there is, head by head, and how many entries of each head it covers.

    New entries come through the tail, the same number in every head: so many are missing at each head's end. Pruned
    heads have none.
    """
    all_held = layer.held(heads)
    flat = layer.state.get(name)
    if flat is None:
        return [torch.empty(0)] * heads, [0] * heads
    live = [head not in layer.pruned for head in range(heads)]
    missing, rest = divmod(sum(n for n, lives in zip(all_held, live, strict=True) if lives) - flat.numel(), sum(live))
    covered = [count - missing if lives else 0 for count, lives in zip(all_held, live, strict=True)]
    assert missing >= 0 and not rest and min(covered) >= 0, f"{name!r} does not fit layer {layer.index}"
    return flat.split(covered), covered


def _state_by_head(layer: LayerCache, name: str, counts: Sequence[int]) -> list[Tensor]:
    """-> per head [n] float32 of its open entries, zero where nothing was observed."""
    device = layer.tail.keys.device if len(layer.tail) else layer.extents[-1].positions.device
    stored, covered = _stored_state(layer, name, len(counts))
    out = []
    for total, count, has, values in zip(layer.held(len(counts)), counts, covered, stored, strict=True):
        mine = torch.zeros(count, device=device)
        closed = total - count
        if has > closed:
            mine[: has - closed] = values[closed:]
        out.append(mine)
    return out


def _closed_state(layer: LayerCache, name: str, heads: int) -> list[Tensor]:
    """-> per head the state of what lies before the open entries."""
    closed = [0] * heads
    for extent in layer.extents[: layer.sealed]:
        closed = [a + b for a, b in zip(closed, extent.counts, strict=True)]
    stored, covered = _stored_state(layer, name, heads)
    out = []
    for count, has, values in zip(closed, covered, stored, strict=True):
        mine = torch.zeros(count, device=values.device)
        mine[: min(count, has)] = values[: min(count, has)]
        out.append(mine)
    return out
