"""Two precisions in one block: each entry's bit says which, and values are evened out channel by channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from farspan.cache.block import register_block, storage_bytes
from farspan.cache.coding import SMALLEST
from farspan.cache.group import GroupBlock

PARTS = ("high", "low")


@register_block
@dataclass(frozen=True, eq=False)
class MixedBlock:
    """Entries marked in `salient` as codes of more bits, the others as codes of fewer, each set apart: keys with one
    scale per head and channel, values with one per entry after division by a factor per head and channel.

    Source: ZipCache (He et al. 2024), sections 3.2 and 4.1: channel-wise keys, channel-separable token-wise values.
    """

    kind: ClassVar[str] = "mixed"
    counts: tuple[int, ...]
    high: GroupBlock
    low: GroupBlock
    salient: Tensor  # [ceil(E / 8)] uint8, one bit per entry, low bits first
    high_factor: Tensor  # [H, Dv] float16
    low_factor: Tensor  # [H, Dv] float16

    @classmethod
    def pack(
        cls, keys: Tensor, values: Tensor, counts: tuple[int, ...], salient: Tensor, *, high: int, low: int
    ) -> MixedBlock:
        """keys [E, D], values [E, Dv], salient [E] bool -> block of `high` and `low` bits."""
        per_head = [int(part.sum()) for part in salient.split(list(counts))]
        rest = [count - marked for count, marked in zip(counts, per_head, strict=True)]
        parts: dict[str, Any] = {}
        for name, marks, its, bits in (("high", salient, per_head, high), ("low", ~salient, rest, low)):
            chosen = values[marks].float()
            factor = _factors(chosen, its)
            even = chosen / factor.float().repeat_interleave(torch.tensor(its, device=factor.device), 0)
            block = GroupBlock.pack(keys[marks], even.to(keys.dtype), tuple(its), max(1, *its), bits=bits)
            parts |= {name: block, f"{name}_factor": factor}
        return cls(counts=tuple(counts), salient=_bits(salient), **parts)

    @property
    def entries(self) -> int:
        """E, all heads together."""
        return sum(self.counts)

    @property
    def nbytes(self) -> int:
        """Codes, scales, factors and marks."""
        return storage_bytes(*self.tensors().values())

    def marks(self, start: int, stop: int) -> Tensor:
        """-> [stop - start] bool: which of these entries have more bits."""
        run = self.salient[start // 8 : -(-stop // 8)]
        bits = run[:, None] >> torch.arange(8, dtype=torch.uint8, device=run.device) & 1
        return bits.flatten()[start % 8 : start % 8 + stop - start].bool()

    def unpack(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Entries start..stop in the dtype they were packed from."""
        marks, before = self.marks(start, stop), int(self.marks(0, start).sum())
        marked = int(marks.sum())
        keys = torch.empty(stop - start, self.high.key_scale.shape[-1], dtype=self.high.dtype, device=marks.device)
        values = torch.empty(stop - start, self.high_factor.shape[-1], dtype=self.high.dtype, device=marks.device)
        keys[marks], values[marks] = _run(self.high, self.high_factor, before, before + marked)
        keys[~marks], values[~marks] = _run(self.low, self.low_factor, start - before, stop - before - marked)
        return keys, values

    def tensors(self) -> dict[str, Tensor]:
        """Six of each part, its factors, and the marks."""
        named = {f"{part}.{name}": t for part in PARTS for name, t in getattr(self, part).tensors().items()}
        return {
            **named,
            "salient": self.salient,
            "high.factor": self.high_factor,
            "low.factor": self.low_factor,
        }

    def data(self) -> dict[str, Any]:
        """Entries per head, and what the parts say."""
        return {"counts": list(self.counts), **{part: getattr(self, part).data() for part in PARTS}}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> MixedBlock:
        """The inverse of `tensors` and `data`."""
        parts: dict[str, Any] = {}
        for part in PARTS:
            its = {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}
            parts[f"{part}_factor"] = its.pop("factor")
            parts[part] = GroupBlock.from_tensors(its, data[part])
        return cls(counts=tuple(data["counts"]), salient=tensors["salient"], **parts)


def _factors(values: Tensor, counts: list[int]) -> Tensor:
    """values [E, Dv] -> [H, Dv] float16: the square root of each channel's largest magnitude in a head (equation 5)."""
    rows = [head.abs().amax(0) if head.shape[0] else head.new_ones(head.shape[1]) for head in values.split(counts)]
    return torch.stack(rows).sqrt().half().clamp_min(SMALLEST)


def _run(block: GroupBlock, factor: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Entries start..stop of one part, values multiplied by their channels' factors."""
    keys, values = block.unpack(start, stop)
    edges = list(accumulate(block.counts, initial=0))
    inside = [max(0, min(b, stop) - max(a, start)) for a, b in pairwise(edges)]
    wide = factor.float().repeat_interleave(torch.tensor(inside, device=factor.device), 0)
    return keys, (values.float() * wide).to(values.dtype)


def _bits(marks: Tensor) -> Tensor:
    """[E] bool -> [ceil(E / 8)] uint8, low bits first."""
    padded = torch.nn.functional.pad(marks.to(torch.uint8), (0, -marks.shape[0] % 8)).unflatten(0, (-1, 8))
    return (padded << torch.arange(8, dtype=torch.uint8, device=marks.device)).sum(-1, dtype=torch.uint8)
