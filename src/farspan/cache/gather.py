"""Single entries of an extent, in floating point, whatever holds them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from farspan.cache.block import Block, DenseBlock
from farspan.cache.extent import UNPACK_ENTRIES, Extent


def entries_at(extent: Extent, slots: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Ascending slots [n] of each head, local to it -> keys [n, D] and values [n, Dv] of each head.

    A packed block is unpacked in runs, and only runs that hold something asked for; of one that lies elsewhere, only
    pages that do are brought.
    """
    extent, slots = extent.picked(slots)
    block = extent.block
    return [_of_head(block, extent.offsets[head] + its) for head, its in enumerate(slots)]


def _of_head(block: Block, index: Tensor) -> tuple[Tensor, Tensor]:
    if isinstance(block, DenseBlock):
        return block.keys[index], block.values[index]
    parts, count = [], index.numel()
    at = 0
    while at < count:
        start = int(index[at])
        end = int(torch.searchsorted(index, start + UNPACK_ENTRIES))
        keys, values = block.unpack(start, int(index[end - 1]) + 1)
        parts.append((keys[index[at:end] - start], values[index[at:end] - start]))
        at = end
    if not parts:
        return block.unpack(0, 0)
    keys, values = (torch.cat(column) for column in zip(*parts, strict=True))
    return keys, values
