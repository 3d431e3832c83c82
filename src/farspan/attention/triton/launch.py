"""Triton's kernels called as the C++ ones are: everything held in one call per layer, or one dense piece."""
# Triton is an extra, and what it makes of functions is not what their types say.
# pyright: reportMissingImports=false, reportIndexIssue=false

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from farspan.attention.scaling import sinks_of, softcap_of
from farspan.attention.triton import interpreted
from farspan.attention.triton.merge import merge_slots
from farspan.attention.triton.parts import Codes, Part, gathered, part_of, seen_by, tail_part
from farspan.attention.triton.split import attend_part

__all__ = ["attend", "attend_piece", "gathered", "part_of", "seen_by", "tail_part"]

TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
PROGRAMS = 512  # about four to each of an H100's 132 multiprocessors
LEAST_RUN = 128  # entries of a head that one program reads
TILE_BYTES = 16_384  # of keys, and as many of values, that a program holds at a time
ACCUMULATED = 8192  # numbers that a program accumulates in registers
MOST_ROWS = {4: 32, 2: 64}  # of queries, by bytes of a number: registers hold no more without spilling


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

    Products are taken in the query's dtype, to which codes are decoded, and summed in float32.
    """
    grouped = _dense(query).unflatten(0, (heads, -1))
    runs = [run_length(part.longest, heads) for part in parts]
    slots, first = _slots(parts, runs, query.shape[1])
    found, found_lse = _room(grouped, slots, value_size)
    for part, run, slot in zip(parts, runs, first, strict=True):
        _launch(grouped, part, run, scaling, found, found_lse, slot=slot)
    return _merged(found, found_lse, dtype, sinks_of(scaling) if whole else None)


def attend_piece(
    query: Tensor, keys: Tensor, values: Tensor, scaling: float, visible: Tensor | None, *, causal: bool = False
) -> tuple[Tensor, Tensor]:
    """As `naive.attend_piece`; `causal` (T == N) stands for a lower-triangular `visible`."""
    heads, group, tokens, _ = query.shape
    longest, size = keys.shape[1], values.shape[-1]
    part = Part(keys=_dense(keys), values=_dense(values), longest=longest, token_count=tokens, causal=causal)
    blocks = -(-group * tokens // _block_rows(group * tokens, size, keys.dtype))
    run = run_length(longest, heads * blocks)
    found, found_lse = _room(query, -(-longest // run), size)
    _launch(_dense(query), part, run, scaling, found, found_lse, visible=visible)
    out, lse = found[0], found_lse[0]
    if len(found) > 1:
        out, lse = _merged(found, found_lse, torch.float32)
        out = out.transpose(0, 1)
    return out.unflatten(0, (heads, group)), lse.unflatten(0, (heads, group))


def run_length(longest: int, programs: int) -> int:
    """How many entries one program reads, where `programs` of them would otherwise read `longest` each: as many as
    keep a GPU full, by shapes alone, so that a sequence's result is the same whatever it is packed with.
    """
    return max(LEAST_RUN, triton.next_power_of_2(-(-longest * programs // PROGRAMS)))


def _slots(parts: Sequence[Part], runs: Sequence[int], tokens: int) -> tuple[int, list[int]]:
    """-> how many slots hold what all runs find, and each part's first; parts that no token shares may share slots."""
    used, first = [0] * max(1, tokens), []
    for part, run in zip(parts, runs, strict=True):
        its = slice(0, tokens)
        if part.tokens is None:
            its = slice(part.first_token, part.first_token + part.token_count)
        slot = max(used[its], default=0)
        first.append(slot)
        used[its] = [slot + -(-part.longest // run)] * len(used[its])
    return max(1, *used), first


def _room(query: Tensor, slots: int, size: int) -> tuple[Tensor, Tensor]:
    """For what runs find: out [slots, Hq, T, Dv], and lse [slots, Hq, T], which says that nothing was found yet."""
    rows = (slots, query.shape[0] * query.shape[1], query.shape[2])
    found = torch.empty(*rows, size, device=query.device)
    return found, torch.full(rows, -torch.inf, device=query.device)


def _merged(found: Tensor, found_lse: Tensor, dtype: torch.dtype, sinks: Tensor | None = None) -> tuple[Tensor, Tensor]:
    slots, heads, tokens, size = found.shape
    out = torch.empty(tokens, heads, size, dtype=dtype, device=found.device)
    lse = torch.empty(heads, tokens, device=found.device)
    sinks = None if sinks is None else sinks.to(found.device)
    if heads * tokens:
        with torch.cuda.device_of(found):
            merge_slots[(heads * tokens,)](
                *(found, found_lse, slots, sinks, out, lse, tokens), DV=size, BLOCK_S=16, BLOCK_DV=_block(size)
            )
    return out, lse


def _launch(
    query: Tensor,
    part: Part,
    run: int,
    scaling: float,
    found: Tensor,
    found_lse: Tensor,
    *,
    slot: int = 0,
    visible: Tensor | None = None,
) -> None:
    """query [H, G, T, D] to one part, in programs that read `run` entries each."""
    heads, group, tokens, size = query.shape
    value_size, rows = found.shape[-1], group * part.token_count
    if not rows or not part.longest:
        return
    dtype = query.dtype if part.codes is not None else torch.promote_types(query.dtype, part.keys.dtype)
    block_rows = _block_rows(rows, value_size, dtype)
    with torch.cuda.device_of(query):
        attend_part[(-(-part.longest // run), -(-rows // block_rows), heads)](
            *(query, *query.stride()[:3]),
            *(part.keys, *_strides(part.keys), part.values, *_strides(part.values)),
            *_scales(part.codes),
            *(part.starts, part.longest, part.gather, part.gather_starts, part.log_weights),
            *((None, 0, 0) if visible is None else (visible.view(torch.uint8), *_strides(visible))),
            *(part.tokens, part.first_token, part.token_count, tokens),
            *(found, found_lse, slot, float(scaling), softcap_of(scaling), part.window, run),
            CAUSAL=part.causal,
            G=group,
            D=size,
            DV=value_size,
            **_grouping(part.codes, value_size),
            BLOCK_M=block_rows,
            BLOCK_N=_block_entries(max(size, value_size), dtype),
            BLOCK_D=_block(size),
            BLOCK_DV=_block(value_size),
            TYPE=TYPES[dtype],
            INTERPRETED=interpreted(),
            num_warps=4 if part.codes is None and block_rows < 64 else 8,  # the fewest with no spilled registers
        )


def _dense(x: Tensor) -> Tensor:
    """With neighbouring channels side by side, as kernels read them."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _strides(x: Tensor) -> tuple[int, int]:
    """Of heads and of rows, in elements; heads that are not apart begin where `starts` says."""
    return x.stride(0) if x.ndim == 3 else 0, x.stride(-2)


def _scales(codes: Codes | None) -> tuple[Tensor | None, ...]:
    if codes is None:
        return (None,) * 5
    return codes.key_scale, codes.key_low, codes.value_scale, codes.value_low, codes.group_starts


def _grouping(codes: Codes | None, value_size: int) -> dict[str, int]:
    if codes is None:
        return dict(BITS=0, GROUP=1, VALUE_GROUP=1, VALUE_GROUPS=1)
    groups = -(-value_size // codes.value_group)
    return dict(BITS=codes.bits, GROUP=codes.group, VALUE_GROUP=codes.value_group, VALUE_GROUPS=groups)


def _block(size: int) -> int:
    """Channels of a tile: a power of two, at least what a matrix product takes."""
    return max(16, triton.next_power_of_2(size))


def _block_rows(rows: int, value_size: int, dtype: torch.dtype) -> int:
    most = max(16, min(MOST_ROWS[dtype.itemsize], ACCUMULATED // _block(value_size)))
    return min(most, _block(rows))


def _block_entries(size: int, dtype: torch.dtype) -> int:
    return max(16, min(64, TILE_BYTES // (_block(size) * dtype.itemsize)))
