"""Numbers to group-wise codes and back: keys share scales per channel, values per token and group of channels.

In C++ where the library is there, and in torch: the same codes and the same numbers, bit for bit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from ctypes import Structure, byref, c_int32, c_int64, c_void_p
from itertools import pairwise

import torch
from torch import Tensor

from farspan.errors import PlanDoesNotApply
from farspan.library import KINDS, LARGEST, library

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
        raise _too_large(x, bits)
    codes = ((x - low.float()) / scale.float()).round_().clamp_(0, levels).to(torch.uint8)
    return codes, scale, low


def _too_large(x: Tensor, bits: int) -> PlanDoesNotApply:
    return PlanDoesNotApply(
        f"keys or values reach {x.abs().max().item():.3g}, beyond what the float16 scales of {bits}-bit codes can "
        "say; read with a plan that holds them in the model's dtype"
    )


def _decode(codes: Tensor, scale: Tensor, low: Tensor) -> Tensor:
    """The inverse of `_encode`, in the place of float32 codes."""
    return codes.mul_(scale.float()).add_(low.float())


def _bytes_of(codes: Tensor, bits: int) -> Tensor:
    """uint8 codes [.., D] -> bytes [.., D * bits / 8]: 8 // bits neighbouring channels to a byte, low bits first.

    8-bit codes lie as int8, code - 128: what integer dot products want.
    """
    if bits == 8:
        return (codes ^ 128).view(torch.int8)
    per_byte = 8 // bits
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=codes.device)
    lanes = codes.unflatten(-1, (codes.shape[-1] // per_byte, per_byte))
    return (lanes << shifts).sum(-1, dtype=torch.uint8)


def _codes_of(codes: Tensor, bits: int) -> Tensor:
    """The inverse of `_bytes_of` -> codes [.., D] in float32."""
    if bits == 8:
        return codes.float().add_(128)
    lanes = codes.new_empty(*codes.shape, 8 // bits)
    for lane in range(8 // bits):
        lanes[..., lane] = codes >> (lane * bits) & (2**bits - 1)
    return lanes.flatten(-2).float()


def _groups(head: Tensor, group: int) -> list[Tensor]:
    """One head's entries [N, D] as whole groups [Q, group, D] and, if N leaves a remainder, one short [1, r, D]."""
    whole = head.shape[0] // group * group
    edges = [0, whole, head.shape[0]]
    return [head[a:b].reshape(-1, min(group, b - a), head.shape[-1]) for a, b in pairwise(edges) if b > a]


class Codes(Structure):
    """FsCodes: entries of one head, dense on one side and as codes on the other."""

    _fields_ = (
        *((name, c_int32) for name in ("kind", "bits", "keys", "group", "size", "skip", "threads")),
        ("count", c_int64),
        ("dense", c_void_p),
        ("stride", c_int64),
        *((name, c_void_p) for name in ("codes", "scale", "low")),
    )


def compiled(*tensors: Tensor) -> bool:
    """Whether the library codes these, dense ones first: FARSPAN_KERNELS forces another route."""
    dense = tensors[0]
    if os.environ.get("FARSPAN_KERNELS", "native") not in ("", "native") or library()[0] is None:
        return False
    if dense.dtype not in KINDS or dense.shape[-1] > LARGEST or dense.stride(-1) != 1:
        return False
    rows = all(x.stride(-1) == 1 and x.stride(-2) == x.shape[-1] for x in tensors[1:])
    return rows and all(x.device.type == "cpu" for x in tensors)


def _call(dense: Tensor, codes: Tensor, scale: Tensor, low: Tensor, bits: int, group: int, *, keys: bool) -> Codes:
    return Codes(
        kind=KINDS[dense.dtype],
        bits=bits,
        keys=keys,
        group=group,
        size=dense.shape[-1],
        threads=torch.get_num_threads(),
        count=dense.shape[0],
        dense=dense.data_ptr(),
        stride=dense.stride(0) * dense.itemsize,
        codes=codes.data_ptr(),
        scale=scale.data_ptr(),
        low=low.data_ptr(),
    )


def _pack(call: Codes, x: Tensor) -> None:
    if library()[0].fs_pack(byref(call)):
        raise _too_large(x, call.bits)


def _room(x: Tensor, scales: tuple[int, ...], bits: int) -> tuple[Tensor, Tensor, Tensor]:
    codes = torch.empty(*x.shape[:-1], x.shape[-1] * bits // 8, dtype=torch.int8 if bits == 8 else torch.uint8)
    return codes, torch.empty(scales, dtype=torch.float16), torch.empty(scales, dtype=torch.float16)


def pack_keys(keys: Tensor, counts: Sequence[int], group: int, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """keys [E, D], `counts[h]` of head h -> codes [E, D * bits / 8], scale and low [Q, D] float16 of Q groups of at
    most `group` consecutive entries of a head. Raises PlanDoesNotApply where numbers lie beyond float16.
    """
    if not compiled(keys):
        chunks = [chunk for head in keys.split(list(counts)) for chunk in _groups(head, group)] or [keys[:, None]]
        parts = [[part.flatten(0, 1) for part in _encode(chunk.float(), -2, bits)] for chunk in chunks]
        codes, scale, low = (torch.cat(each) for each in zip(*parts, strict=True))
        return _bytes_of(codes, bits), scale, low
    codes, scale, low = _room(keys, (sum(-(-count // group) for count in counts), keys.shape[-1]), bits)
    entry = first = 0
    for count in counts:
        part = keys[entry : entry + count]
        _pack(_call(part, codes[entry:], scale[first:], low[first:], bits, group, keys=True), keys)
        entry += count
        first += -(-count // group)
    return codes, scale, low


def pack_values(values: Tensor, group: int, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """values [E, Dv] -> codes [E, Dv * bits / 8], scale and low [E, V] float16 of V groups of at most `group` channels.
    Raises PlanDoesNotApply where numbers lie beyond float16.
    """
    if not compiled(values):
        parts = [_encode(part, -1, bits) for part in values.float().split(group, -1)]
        codes, scale, low = (torch.cat(each, -1) for each in zip(*parts, strict=True))
        return _bytes_of(codes, bits), scale, low
    codes, scale, low = _room(values, (values.shape[0], -(-values.shape[-1] // group)), bits)
    _pack(_call(values, codes, scale, low, bits, group, keys=False), values)
    return codes, scale, low


def unpack_keys(
    codes: Tensor, scale: Tensor, low: Tensor, bits: int, group: int, dtype: torch.dtype, *, skip: int = 0
) -> Tensor:
    """codes [H, n, D * bits / 8], scale and low [H, Q, D] -> [H, n, D] in `dtype`; the first group lacks its first
    `skip` entries.
    """
    heads, count = codes.shape[:2]
    dense = torch.empty(heads, count, scale.shape[-1], dtype=dtype, device=codes.device)
    if not compiled(dense, codes, scale, low):
        index = torch.arange(skip, skip + count, device=codes.device) // group
        return _decode(_codes_of(codes, bits), scale[:, index], low[:, index]).to(dtype)
    for h in range(heads):
        call = _call(dense[h], codes[h], scale[h], low[h], bits, group, keys=True)
        call.skip = skip
        library()[0].fs_unpack(byref(call))
    return dense


def unpack_values(codes: Tensor, scale: Tensor, low: Tensor, bits: int, group: int, dtype: torch.dtype) -> Tensor:
    """codes [.., n, Dv * bits / 8], scale and low [.., n, V] -> [.., n, Dv] in `dtype`."""
    dense = torch.empty(*codes.shape[:-1], codes.shape[-1] * 8 // bits, dtype=dtype, device=codes.device)
    if not compiled(dense, codes, scale, low):
        values = _codes_of(codes, bits)
        for i, part in enumerate(values.split(group, -1)):  # views: decoded where they lie
            _decode(part, scale[..., i : i + 1], low[..., i : i + 1])
        return values.to(dtype)
    rows, its, scales, lows = (x if x.dim() == 3 else x[None] for x in (dense, codes, scale, low))
    for h in range(rows.shape[0]):
        library()[0].fs_unpack(byref(_call(rows[h], its[h], scales[h], lows[h], bits, group, keys=False)))
    return dense
