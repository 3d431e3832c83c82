"""Group-wise codes of 8, 4 or 2 bits: keys per channel, values per token (the grouping of KIVI, Liu et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from farspan.cache.block import Paging, register_block, storage_bytes
from farspan.cache.coding import pack_keys, pack_values, unpack_keys, unpack_values, unpackable
from farspan.errors import PlanDoesNotApply


@register_block
@dataclass(frozen=True, eq=False)
class GroupBlock:
    """Codes of `bits` bits with one scale and low per channel and group of `group` consecutive entries of a head for
    keys, and per entry and group of `value_group` channels for values. `counts[h]` entries belong to head h. A head's
    last group of entries may be short, and so may an entry's last group of channels.
    """

    kind: ClassVar[str] = "group"
    bits: int
    group: int
    value_group: int
    counts: tuple[int, ...]
    dtype: torch.dtype
    key_codes: Tensor  # [E, D * bits / 8] uint8 (int8 at 8 bits)
    key_scale: Tensor  # [Q, D] float16, Q groups of all heads
    key_low: Tensor  # [Q, D] float16
    value_codes: Tensor  # [E, Dv * bits / 8]
    value_scale: Tensor  # [E, V] float16, V groups of channels
    value_low: Tensor  # [E, V] float16

    @property
    def entries(self) -> int:
        """E, all heads together."""
        return self.key_codes.shape[0]

    @property
    def nbytes(self) -> int:
        """Codes and scales."""
        return storage_bytes(*self.tensors().values())

    @classmethod
    def pack(
        cls,
        keys: Tensor,
        values: Tensor,
        counts: tuple[int, ...],
        group: int,
        *,
        bits: int = 8,
        value_group: int | None = None,
    ) -> GroupBlock:
        """keys [E, D], values [E, Dv] -> block; error per element at most half a step of its group.

        `value_group` is how many channels of a value share a scale, all of them if None. Raises PlanDoesNotApply
        where D or Dv does not fill whole bytes, or numbers lie beyond float16.
        """
        reason = unpackable(keys.shape[-1], bits) or unpackable(values.shape[-1], bits)
        if reason is not None:
            raise PlanDoesNotApply(f"keys or values cannot be packed: {reason}")
        value_group = min(value_group or values.shape[-1], values.shape[-1])
        key_codes, key_scale, key_low = pack_keys(keys, counts, group, bits)
        value_codes, value_scale, value_low = pack_values(values, value_group, bits)
        return cls(
            bits=bits,
            group=group,
            value_group=value_group,
            counts=tuple(counts),
            dtype=keys.dtype,
            key_codes=key_codes,
            key_scale=key_scale,
            key_low=key_low,
            value_codes=value_codes,
            value_scale=value_scale,
            value_low=value_low,
        )

    def unpack(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Dequantised keys and values of entries start..stop in the dtype they were packed from."""
        parts, entry, first = [], 0, 0
        for count in self.counts:
            low, high = max(start, entry) - entry, min(stop, entry + count) - entry
            if low < high:
                codes = self.key_codes[entry + low : entry + high]
                scales = slice(first + low // self.group, first + -(-high // self.group))
                parts.append(
                    unpack_keys(
                        codes[None],
                        self.key_scale[None, scales],
                        self.key_low[None, scales],
                        self.bits,
                        self.group,
                        self.dtype,
                        skip=low % self.group,
                    )[0]
                )
            entry += count
            first += -(-count // self.group)
        run = slice(start, stop)
        values = (self.value_codes[run], self.value_scale[run], self.value_low[run])
        keys = torch.cat(parts) if parts else self.key_scale[:0].to(self.dtype)
        return keys, unpack_values(*values, self.bits, self.value_group, self.dtype)

    def unpack_heads(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Entries start..stop of every head at once, [H, n, D] and [H, n, Dv]; heads must hold equal numbers."""
        heads = len(self.counts)
        scales = slice(start // self.group, -(-stop // self.group))
        codes, scale, low = (
            tensor.unflatten(0, (heads, -1))[:, run]
            for tensor, run in ((self.key_codes, slice(start, stop)), (self.key_scale, scales), (self.key_low, scales))
        )
        keys = unpack_keys(codes, scale, low, self.bits, self.group, self.dtype, skip=start % self.group)
        codes, scale, low = (
            tensor.unflatten(0, (heads, -1))[:, start:stop]
            for tensor in (self.value_codes, self.value_scale, self.value_low)
        )
        return keys, unpack_values(codes, scale, low, self.bits, self.value_group, self.dtype)

    def paging(self) -> Paging:
        """A page is a group of keys, with its scales."""
        return Paging(self.group, frozenset({"key_scale", "key_low"}))

    def tensors(self) -> dict[str, Tensor]:
        """Six tensors."""
        names = ("key_codes", "key_scale", "key_low", "value_codes", "value_scale", "value_low")
        return {name: getattr(self, name) for name in names}

    def data(self) -> dict[str, Any]:
        """Width of the codes, lengths of the groups, entries per head, and the dtype to decode to."""
        return {
            "bits": self.bits,
            "group": self.group,
            "value_group": self.value_group,
            "counts": list(self.counts),
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> GroupBlock:
        """The inverse of `tensors` and `data`."""
        return cls(
            bits=data["bits"],
            group=data["group"],
            value_group=data["value_group"],
            counts=tuple(data["counts"]),
            dtype=getattr(torch, data["dtype"]),
            **tensors,
        )

    def joined(self, other: GroupBlock) -> GroupBlock | None:
        """self followed by other, head by head, without requantising; None where a short group would stand between,
        or the two differ in width or grouping.
        """
        forms = [(block.bits, block.group, block.value_group) for block in (self, other)]
        if forms[0] != forms[1] or any(n % self.group for n in self.counts):
            return None
        groups = [tuple(-(-n // self.group) for n in block.counts) for block in (self, other)]
        parts = {}
        for name, mine in self.tensors().items():
            sizes = groups if name in ("key_scale", "key_low") else [self.counts, other.counts]
            theirs = other.tensors()[name]
            pairs = zip(mine.split(list(sizes[0])), theirs.split(list(sizes[1])), strict=True)
            parts[name] = torch.cat([t for pair in pairs for t in pair])
        counts = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        return replace(self, counts=counts, **parts)


def group_bytes(
    counts: int,
    heads: int,
    head_size: int,
    value_size: int,
    group: int,
    *,
    bits: int = 8,
    value_group: int | None = None,
) -> int:
    """Bytes of a GroupBlock whose `heads` heads hold `counts` entries each."""
    codes = (head_size + value_size) * bits // 8
    value_scales = -(-value_size // (value_group or value_size)) * 4
    key_scales = -(-counts // group) * head_size * 4
    return heads * (counts * (codes + value_scales) + key_scales)
