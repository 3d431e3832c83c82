"""What one Triton kernel attends to: entries of all heads, and which tokens see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from farspan.cache import Block, DenseBlock, Extent, GroupBlock

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LARGEST = 512  # head size


@dataclass(frozen=True, kw_only=True, eq=False)
class Codes:
    """How codes of `bits` bits become numbers; scales and lows as `GroupBlock` holds them."""

    bits: int
    group: int
    value_group: int
    key_scale: Tensor
    key_low: Tensor
    value_scale: Tensor
    value_low: Tensor
    group_starts: Tensor  # [H + 1] int64: each head's first group of keys


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Keys and values [H, N, ..], or [E, ..] head after head where `starts` [H + 1] int64 says which are whose.

    `gather` (int32, local to its head) picks entries; then `longest` counts those. The `token_count` tokens that see
    the part stand at `first_token` and after, or are numbered by `tokens`; `causal` makes them its last entries, each
    of which sees itself and before, the newest `window` at most.
    """

    keys: Tensor
    values: Tensor
    longest: int  # entries of the head that has most
    starts: Tensor | None = None
    codes: Codes | None = None
    gather: Tensor | None = None
    gather_starts: Tensor | None = None  # [H + 1] int64
    log_weights: Tensor | None = None  # float32, one for each of `gather`
    tokens: Tensor | None = None  # int32
    first_token: int = 0
    token_count: int = 0
    causal: bool = False
    window: int | None = None


def part_of(extent: Extent) -> Part | None:
    """What the kernels need to know of an extent; None for a block they do not know. Kept with the extent, which never
    changes, unless its block lies elsewhere.
    """
    if isinstance(extent.prepared, Part):
        return extent.prepared
    part = _part_of(extent, extent.block)
    if part is not None and extent.kept:
        extent.prepared = part
    return part


def _part_of(extent: Extent, block: Block) -> Part | None:
    codes = None
    if isinstance(block, DenseBlock):
        if block.keys.dtype not in DTYPES:
            return None
        keys, values = block.keys, block.values
    elif isinstance(block, GroupBlock):
        keys, values = block.key_codes, block.value_codes
        codes = Codes(
            bits=block.bits,
            group=block.group,
            value_group=block.value_group,
            key_scale=block.key_scale.contiguous(),
            key_low=block.key_low.contiguous(),
            value_scale=block.value_scale.contiguous(),
            value_low=block.value_low.contiguous(),
            group_starts=_starts([-(-count // block.group) for count in extent.counts], keys.device),
        )
    else:
        return None
    if not (keys.stride(-1) == values.stride(-1) == 1):
        return None
    starts = _starts(extent.counts, keys.device)
    return Part(keys=keys, values=values, longest=max(extent.counts), starts=starts, codes=codes)


def _starts(counts: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor([0, *accumulate(counts)], device=device)


def tail_part(keys: Tensor, values: Tensor, *, first_token: int, tokens: int, window: int | None) -> Part:
    """keys [H, n, D], values [H, n, Dv] whose last `tokens` entries are the new ones, each seen by itself and later."""
    return Part(
        keys=keys,
        values=values,
        longest=keys.shape[1],
        first_token=first_token,
        token_count=tokens,
        causal=True,
        window=window,
    )


def seen_by(part: Part, tokens: slice | Tensor) -> Part:
    """The same entries, seen by these tokens of the batch."""
    if isinstance(tokens, slice):
        return replace(part, tokens=None, first_token=tokens.start, token_count=tokens.stop - tokens.start)
    return replace(part, tokens=tokens.int(), token_count=tokens.numel())


def gathered(part: Part, slots: Sequence[Tensor], log_weights: Sequence[Tensor] | None = None) -> Part:
    """Of a part, the entries at `slots[h]` [n] of each head alone, their scores raised by `log_weights[h]` [n]."""
    counts = [its.numel() for its in slots]
    return replace(
        part,
        gather=torch.cat(list(slots)).int(),
        gather_starts=_starts(counts, part.keys.device),
        longest=max(counts),
        log_weights=None if log_weights is None else torch.cat(list(log_weights)).float(),
    )
