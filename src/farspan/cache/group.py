"""Group-wise codes of 8, 4 or 2 bits: keys per channel, values per token (the grouping of KIVI, Liu et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from farspan.cache.block import Paging, register_block, storage_bytes
from farspan.errors import PlanDoesNotApply

SMALLEST = 2.0**-24  # of float16: a scale of zero would lose a constant channel


def unpackable(size: int, bits: int) -> str | None:
    """Why entries of `size` channels cannot be held in `bits` bits each, or None where they can."""
    per_byte = 8 // bits
    if size % per_byte == 0:
        return None
    return f"{bits}-bit codes lie {per_byte} to a byte, and head size {size} is no multiple of {per_byte}; use int8"


def _encode(x: Tensor, dim: int, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Asymmetric codes of `x` (float32) along `dim` -> uint8 codes 0..2**bits-1, which stand for low + scale * code,
    and scale and low (float16, `dim` kept as 1).

    Codes are taken against the rounded scale and low, so what float16 loses in them is not lost twice. The
    scale is rounded up one step: rounding down would clip the extremes.
    """
    levels = 2**bits - 1
    low, high = x.amin(dim, keepdim=True), x.amax(dim, keepdim=True)
    low = low.half()
    low = torch.where(low.float() > x.amin(dim, keepdim=True), torch.nextafter(low, low.new_tensor(-torch.inf)), low)
    scale = ((high - low.float()) / levels).half()
    short = scale.float() * levels < high - low.float()
    scale = torch.where(short, torch.nextafter(scale, scale.new_tensor(torch.inf)), scale)
    scale = scale.clamp_min(SMALLEST)
    if not bool(torch.isfinite(scale).all() & torch.isfinite(low).all()):
        raise PlanDoesNotApply(
            f"keys or values reach {x.abs().max().item():.3g}, beyond what the float16 scales of {bits}-bit codes can "
            "say; read with a plan that holds them in the model's dtype"
        )
    codes = ((x - low.float()) / scale.float()).round_().clamp_(0, levels).to(torch.uint8)
    return codes, scale, low


def _decode(codes: Tensor, scale: Tensor, low: Tensor) -> Tensor:
    """The inverse of `_encode`, in the place of float32 codes."""
    return codes.mul_(scale.float()).add_(low.float())


def _packed(codes: Tensor, bits: int) -> Tensor:
    """uint8 codes [.., D] -> bytes [.., D * bits / 8]: 8 // bits neighbouring channels to a byte, low bits first.

    8-bit codes lie as int8, code - 128: what integer dot products want.
    """
    if bits == 8:
        return (codes ^ 128).view(torch.int8)
    per_byte = 8 // bits
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=codes.device)
    lanes = codes.unflatten(-1, (codes.shape[-1] // per_byte, per_byte))
    return (lanes << shifts).sum(-1, dtype=torch.uint8)


def _unpacked(codes: Tensor, bits: int) -> Tensor:
    """The inverse of `_packed` -> codes [.., D] in float32."""
    if bits == 8:
        return codes.float().add_(128)
    lanes = codes.new_empty(*codes.shape, 8 // bits)
    for lane in range(8 // bits):
        lanes[..., lane] = codes >> (lane * bits) & (2**bits - 1)
    return lanes.flatten(-2).float()


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
        chunks = [chunk for head in keys.split(list(counts)) for chunk in _groups(head, group)] or [keys[:, None]]
        key_parts = [[part.flatten(0, 1) for part in _encode(chunk.float(), -2, bits)] for chunk in chunks]
        value_group = min(value_group or values.shape[-1], values.shape[-1])
        value_parts = [_encode(part, -1, bits) for part in values.float().split(value_group, -1)]
        key_codes, key_scale, key_low = (torch.cat(parts) for parts in zip(*key_parts, strict=True))
        value_codes, value_scale, value_low = (torch.cat(parts, -1) for parts in zip(*value_parts, strict=True))
        return cls(
            bits=bits,
            group=group,
            value_group=value_group,
            counts=tuple(counts),
            dtype=keys.dtype,
            key_codes=_packed(key_codes, bits),
            key_scale=key_scale,
            key_low=key_low,
            value_codes=_packed(value_codes, bits),
            value_scale=value_scale,
            value_low=value_low,
        )

    def unpack(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Dequantised keys and values of entries start..stop in the dtype they were packed from."""
        index = self._group_of(start, stop)
        keys = _decode(_unpacked(self.key_codes[start:stop], self.bits), self.key_scale[index], self.key_low[index])
        run = slice(start, stop)
        values = self._values(self.value_codes[run], self.value_scale[run], self.value_low[run])
        return keys.to(self.dtype), values.to(self.dtype)

    def unpack_heads(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Entries start..stop of every head at once, [H, n, D] and [H, n, Dv]; heads must hold equal numbers."""
        heads = len(self.counts)
        index = torch.arange(start, stop, device=self.key_codes.device) // self.group
        key_codes = self.key_codes.unflatten(0, (heads, -1))[:, start:stop]
        scale, low = (x.unflatten(0, (heads, -1))[:, index] for x in (self.key_scale, self.key_low))
        of_values = (self.value_codes, self.value_scale, self.value_low)
        values = self._values(*(x.unflatten(0, (heads, -1))[:, start:stop] for x in of_values))
        return _decode(_unpacked(key_codes, self.bits), scale, low).to(self.dtype), values.to(self.dtype)

    def _values(self, codes: Tensor, scale: Tensor, low: Tensor) -> Tensor:
        """Decode a run of values, group of channels by group, in float32."""
        values = _unpacked(codes, self.bits)
        for i, part in enumerate(values.split(self.value_group, -1)):  # views: decoded where they lie
            _decode(part, scale[..., i : i + 1], low[..., i : i + 1])
        return values

    def _group_of(self, start: int, stop: int) -> Tensor:
        """-> [stop - start] index of each entry's key group."""
        device = self.key_codes.device
        index = torch.empty(stop - start, dtype=torch.long, device=device)
        entry = first = 0
        for count in self.counts:
            low, high = max(start, entry), min(stop, entry + count)
            if low < high:
                inside = torch.arange(low - entry, high - entry, device=device)
                index[low - start : high - start] = first + inside // self.group
            entry += count
            first += -(-count // self.group)
        return index

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


def _groups(head: Tensor, group: int) -> list[Tensor]:
    """One head's entries [N, D] as whole groups [Q, group, D] and, if N leaves a remainder, one short [1, r, D]."""
    whole = head.shape[0] // group * group
    edges = [0, whole, head.shape[0]]
    return [head[a:b].reshape(-1, min(group, b - a), head.shape[-1]) for a, b in pairwise(edges) if b > a]


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
