"""The C++ kernel for many query rows that see alike, where the machine multiplies matrices of bfloat16 (AMX).

Everything that queries see is one call: no slices, no masks and nothing to merge. The definition is `Sight.sees`. What
is older than every query and seen by all comes as the parts that `native` knows: ragged too, and as codes, which are
read back tile by tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import Structure, byref, c_float, c_int32, c_int64, c_void_p
from typing import NamedTuple

import torch
from torch import Tensor

from farspan.attention.native import Part, part_of, tail_part
from farspan.attention.pattern import Sight
from farspan.attention.scaling import sinks_of, softcap_of
from farspan.cache import Extent
from farspan.library import KINDS, LARGEST, library

EVERYTHING = Sight(window=2**31 - 1)


class Held(NamedTuple):
    """Entries that queries may see: keys [h, n, D], values [h, n, Dv], positions [n] int32 ascending."""

    keys: Tensor
    values: Tensor
    positions: Tensor


class Run(Structure):
    """FsRun: entries side by side."""

    _fields_ = (
        *((name, c_void_p) for name in ("keys", "values")),
        *((name, c_int64) for name in ("key_head_stride", "key_stride", "value_head_stride", "value_stride")),
        ("positions", c_void_p),
        ("count", c_int64),
    )


class Call(Structure):
    """FsSight: the queries, what they see, and where results go."""

    _fields_ = (
        *((name, c_void_p) for name in ("query", "out")),
        *((f"{name}_stride", c_int64) for name in ("query_head", "query_token", "out_head", "out_token")),
        *((name, c_int32) for name in ("heads", "group", "tokens", "key_size", "value_size", "first")),
        ("scaling", c_float),
        ("softcap", c_float),
        ("sinks", c_void_p),
        *((name, c_int32) for name in ("before", "columns", "bands", "threads")),
        *((name, c_void_p) for name in ("column", "band", "lse")),
    )


def takes(held: Sequence[tuple[Tensor, ...]], scaling: float) -> bool:
    """Whether the kernel is there and takes entries like these: keys and values, and whatever more."""
    found, _ = library()
    return found is not None and scaling > 0 and all(map(_known, held)) and bool(found.fs_sees())


def _known(held: tuple[Tensor, ...]) -> bool:
    return all(t.dtype == torch.bfloat16 and t.shape[-1] <= LARGEST and t.stride(-1) == 1 for t in held[:2])


def part(extent: Extent) -> Part | None:
    """An extent as the kernel takes it; None if it does not."""
    known = part_of(extent)
    return None if known is None or known.kind in (KINDS[torch.float32], KINDS[torch.float16]) else known


def attend_piece(
    query: Tensor, keys: Tensor, values: Tensor, scaling: float, *, causal: bool = False
) -> tuple[Tensor, Tensor]:
    """query [H, G, T, D] to all of keys [H, N, D], values [H, N, Dv], or up to its own where `causal` (T == N) -> out
    [H, G, T, Dv] in bfloat16, and lse [H, G, T] without sinks.
    """
    heads, group, tokens, _ = query.shape
    out = torch.empty(tokens, heads, group, values.shape[-1], dtype=torch.bfloat16)
    lse = torch.empty(heads, group, tokens)
    if causal:
        held, older = [Held(keys, values, torch.arange(tokens, dtype=torch.int32))], []
    else:
        held, older = [], [tail_part(keys, values, first_token=0, tokens=0, window=None)]
    attend(query, 0, held, EVERYTHING, scaling, out, parts=older, lse=lse, whole=False)
    return out.permute(1, 2, 0, 3), lse


def attend(
    query: Tensor,
    first: int,
    held: Sequence[Held],
    sight: Sight,
    scaling: float,
    out: Tensor,
    *,
    parts: Sequence[Part] = (),
    lse: Tensor | None = None,
    whole: bool = True,
) -> None:
    """query [h, G, T, D] of the tokens at positions `first`.., which see themselves at least, or what is in `parts`
    -> out [T, h, G, Dv], and lse [h, G, T] float32 where it is wanted; `whole` as in `native.attend`.

    Queries are rounded to bfloat16, weights too before they meet values; sums are in float32. `scaling` is that of
    these heads (see `scaling.of_heads`); `parts` are of all heads.
    """
    found, why = library()
    if found is None:
        raise RuntimeError(why)
    heads, group, tokens, size = query.shape
    asked = query.to(torch.bfloat16).flatten(0, 1)
    asked = asked if asked.stride(-1) == 1 else asked.contiguous()
    fits = out.dtype == torch.bfloat16 and out.stride(-1) == 1 and out.stride(1) == group * out.stride(2)
    to = out if fits else torch.empty(out.shape, dtype=torch.bfloat16)
    bands = torch.tensor([(0, sight.window), *sight.bands], dtype=torch.int32)
    columns = torch.empty(0, dtype=torch.int32) if sight.columns is None else sight.columns.int().contiguous()
    sinks = sinks_of(scaling) if whole else None
    call = Call(
        query=asked.data_ptr(),
        out=to.data_ptr(),
        query_head_stride=2 * asked.stride(0),
        query_token_stride=2 * asked.stride(1),
        out_head_stride=2 * to.stride(2),
        out_token_stride=2 * to.stride(0),
        heads=heads,
        group=group,
        tokens=tokens,
        key_size=size,
        value_size=out.shape[-1],
        first=first,
        scaling=scaling,
        softcap=softcap_of(scaling) or 0.0,
        sinks=None if sinks is None else sinks.data_ptr(),
        before=sight.sinks,
        columns=columns.numel(),
        bands=bands.shape[0],
        threads=torch.get_num_threads(),
        column=columns.data_ptr() if columns.numel() else None,
        band=bands.data_ptr(),
        lse=None if lse is None else lse.data_ptr(),
    )
    runs = (Run * len(held))(*map(_run, held))
    if found.fs_attend_sight(byref(call), runs, len(runs), (Part * len(parts))(*parts), len(parts)):
        raise MemoryError("no memory is left for what attention works in")
    if to is not out:
        out.copy_(to)


def _run(held: Held) -> Run:
    keys, values, positions = held
    return Run(
        keys=keys.data_ptr(),
        values=values.data_ptr(),
        key_head_stride=2 * keys.stride(0),
        key_stride=2 * keys.stride(1),
        value_head_stride=2 * values.stride(0),
        value_stride=2 * values.stride(1),
        positions=positions.data_ptr(),
        count=positions.numel(),
    )
