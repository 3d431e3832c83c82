"""The C++ kernels, where they were built: attention of few query rows to everything held, in one call per layer.

`native/farspan.h` says what crosses the boundary. The library is loaded by ctypes and chooses its instruction set at
run time; without it, or for parts it does not know, torch attends.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import Structure, byref, c_float, c_int32, c_int64, c_void_p

import torch
from torch import Tensor

from farspan.attention.scaling import sinks_of, softcap_of
from farspan.cache import Block, DenseBlock, Extent, GroupBlock
from farspan.library import KINDS, LARGEST, library

CODES = {8: 8, 4: 4, 2: 2}


class Part(Structure):
    """FsPart: entries of all heads, and which tokens see them."""

    _fields_ = (
        *((name, c_int32) for name in ("kind", "group", "value_group", "value_groups")),
        *((name, c_void_p) for name in ("keys", "values")),
        *((name, c_int64) for name in ("key_head_stride", "key_stride", "value_head_stride", "value_stride")),
        *((name, c_void_p) for name in ("key_scale", "key_low", "value_scale", "value_low")),
        *((name, c_void_p) for name in ("offsets", "group_offsets")),
        ("count", c_int64),
        *((name, c_void_p) for name in ("gather", "gather_offsets", "log_weights", "tokens")),
        *((name, c_int32) for name in ("first_token", "token_count", "causal", "window")),
    )


class Call(Structure):
    """FsCall: the queries, and where results go."""

    _fields_ = (
        ("query", c_void_p),
        ("query_head_stride", c_int64),
        ("query_token_stride", c_int64),
        *((name, c_int32) for name in ("query_kind", "heads", "group", "tokens", "key_size", "value_size")),
        ("scaling", c_float),
        ("softcap", c_float),
        ("sinks", c_void_p),
        ("out", c_void_p),
        ("out_kind", c_int32),
        ("lse", c_void_p),
        ("exact", c_int32),
        ("threads", c_int32),
    )


def available() -> str | None:
    """None if the library is there and agrees with the definition, else the reason."""
    found, why = library()
    return why if found is None else None


def part_of(extent: Extent) -> Part | None:
    """What the kernels need to know of an extent; None for a block they do not know. Kept with the extent, which never
    changes, unless its block lies elsewhere: then that lives as long as the part.
    """
    if not extent.kept:
        block = extent.block
        part = _part_of(extent, block)
        if part is not None:
            part.kept = (*getattr(part, "kept", ()), block)
        return part
    if not isinstance(extent.prepared, Part) and extent.prepared is not False:
        extent.prepared = _part_of(extent, extent.block) or False
    return extent.prepared or None


def _part_of(extent: Extent, block: Block) -> Part | None:
    part = Part(token_count=0)
    if isinstance(block, DenseBlock):
        if block.keys.dtype not in KINDS or block.keys.shape[-1] > LARGEST or block.values.shape[-1] > LARGEST:
            return None
        part.kind = KINDS[block.keys.dtype]
        keys, values = block.keys, block.values
    elif isinstance(block, GroupBlock):
        if 128 % block.group:  # tiles of the kernels are whole groups
            return None
        part.kind, keys, values = CODES[block.bits], block.key_codes, block.value_codes
        part.group, part.value_group, part.value_groups = block.group, block.value_group, block.value_scale.shape[1]
        _point(part, key_scale=block.key_scale, key_low=block.key_low)
        _point(part, value_scale=block.value_scale, value_low=block.value_low)
        firsts = [0]
        for count in extent.counts:
            firsts.append(firsts[-1] - (-count // block.group))
        _keep(part, group_offsets=torch.tensor(firsts))
    else:
        return None
    if not (keys.stride(-1) == values.stride(-1) == 1):
        return None
    part.key_stride, part.value_stride = keys.stride(0) * keys.itemsize, values.stride(0) * values.itemsize
    _point(part, keys=keys, values=values)
    _keep(part, offsets=torch.tensor(extent.offsets))
    part.count = extent.counts[0]
    return part


def _point(part: Part, **tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if not tensor.is_contiguous():
            raise ValueError(f"{name} of a block is not contiguous")
        setattr(part, name, tensor.data_ptr())


def _keep(part: Part, **tensors: Tensor) -> None:
    """Point at tensors that nobody else holds: they live as long as the part."""
    _point(part, **tensors)
    part.kept = (*getattr(part, "kept", ()), *tensors.values())


def tail_part(keys: Tensor, values: Tensor, *, first_token: int, tokens: int, window: int | None) -> Part:
    """keys [H, n, D], values [H, n, Dv] whose last `tokens` entries are the new ones, each seen by itself and later."""
    return Part(
        kind=KINDS[keys.dtype],
        keys=keys.data_ptr(),
        values=values.data_ptr(),
        key_head_stride=keys.stride(0) * keys.itemsize,
        key_stride=keys.stride(1) * keys.itemsize,
        value_head_stride=values.stride(0) * values.itemsize,
        value_stride=values.stride(1) * values.itemsize,
        count=keys.shape[1],
        first_token=first_token,
        token_count=tokens,
        causal=1,
        window=window or 0,
    )


def seen_by(part: Part, tokens: slice | Tensor) -> Part:
    """The same entries, seen by these tokens of the batch."""
    seen = Part.from_buffer_copy(part)
    seen.kept = (part,)
    if isinstance(tokens, slice):
        seen.first_token, seen.token_count = tokens.start, tokens.stop - tokens.start
    else:
        _keep(seen, tokens=tokens.int())
        seen.token_count = tokens.numel()
    return seen


def gathered(part: Part, slots: Sequence[Tensor], log_weights: Sequence[Tensor] | None = None) -> Part:
    """Of a part that `seen_by` made, the entries at `slots[h]` [n] of each head alone, at least one in all; their
    scores are raised by `log_weights[h]` [n].
    """
    offsets = [0]
    for its in slots:
        offsets.append(offsets[-1] + its.numel())
    assert offsets[-1], "a part without entries would be read as one of all entries"
    _keep(part, gather=torch.cat(list(slots)).int(), gather_offsets=torch.tensor(offsets))
    if log_weights is not None:
        _keep(part, log_weights=torch.cat(list(log_weights)).float())
    return part


class Ready:
    """A call of the kernels that needs only its queries: what of parts and shapes they are told, told once, for as many
    queries [Hq, T, D] like the first. `parts` are those of the call, where a count may be changed.
    """

    __slots__ = ("_call", "_dtype", "_held", "_library", "_shape", "parts")

    def __init__(self, query: Tensor, heads: int, value_size: int, parts: Sequence[Part], dtype: torch.dtype) -> None:
        found, why = library()
        if found is None:
            raise RuntimeError(why)
        query_heads, tokens, size = query.shape
        self._library, self._shape, self._dtype = found, (tokens, query_heads, value_size), dtype
        self._held = tuple(parts)  # they keep alive what they point at
        self.parts = (Part * len(parts))(*parts)
        self._call = Call(
            query_kind=KINDS[query.dtype],
            heads=heads,
            group=query_heads // heads,
            tokens=tokens,
            key_size=size,
            value_size=value_size,
            out_kind=KINDS[dtype],
            exact=query.dtype == torch.float32,
            threads=torch.get_num_threads(),
        )

    def attend(self, query: Tensor, scaling: float, sinks: Tensor | None, lse: Tensor | None) -> Tensor:
        """-> out [T, Hq, Dv], and the log-sum-exp in `lse` [Hq, T], where it is wanted."""
        out = torch.empty(self._shape, dtype=self._dtype)
        head, token, channel = query.stride()
        if channel != 1:
            query = query.contiguous()
            head, token, _ = query.stride()
        call, size = self._call, query.itemsize
        call.query, call.query_head_stride, call.query_token_stride = query.data_ptr(), head * size, token * size
        call.scaling, call.softcap = scaling, softcap_of(scaling) or 0.0
        call.sinks = None if sinks is None else sinks.data_ptr()
        call.out, call.lse = out.data_ptr(), None if lse is None else lse.data_ptr()
        if self._library.fs_attend(byref(call), self.parts, len(self.parts)):
            raise MemoryError("no memory is left for partial results of attention")
        return out


def attend(
    query: Tensor,
    heads: int,
    value_size: int,
    scaling: float,
    parts: Sequence[Part],
    dtype: torch.dtype,
    *,
    whole: bool = False,
) -> tuple[Tensor, Tensor]:
    """query [Hq, T, D] -> out [T, Hq, Dv] in `dtype` and lse [Hq, T] float32, over all parts together; `whole` says
    that no other part is merged with these, so that sinks take their weight here.

    Queries of 16 bits meet codes in integer arithmetic where the machine has it (off by less than 1e-3 of the largest
    value; bfloat16 itself rounds to 4e-3), float32 queries in float32.
    """
    lse = torch.empty(query.shape[0], query.shape[1])
    ready = Ready(query, heads, value_size, parts, dtype)
    return ready.attend(query, scaling, sinks_of(scaling) if whole else None, lse), lse
