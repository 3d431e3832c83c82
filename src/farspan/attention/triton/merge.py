"""The kernel that makes one softmax of what runs of entries found."""
# Triton is an extra, and what stands under @triton.jit is its language, not Python's.
# pyright: reportMissingImports=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["slots", "tokens"])
def merge_slots(
    out, lse, slots, sinks, to, to_lse, tokens, DV: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_DV: tl.constexpr
):
    """Programs (query head and token, each a row) over out [slots, rows, DV] and lse [slots, rows] -> to [T, Hq, DV]
    and to_lse [Hq, T]. What a slot whose log-sum-exp is -inf holds is not looked at.

    `sinks` [Hq] are logits without values: each takes its weight once, however many runs there were.
    """
    row, rows = tl.program_id(0), tl.num_programs(0)
    channel = tl.arange(0, BLOCK_DV)
    best = tl.full([], -float("inf"), tl.float32)
    total = tl.zeros([], tl.float32)
    acc = tl.zeros([BLOCK_DV], tl.float32)
    for start in range(0, slots, BLOCK_S):
        slot = start + tl.arange(0, BLOCK_S)
        its = tl.load(lse + slot.to(tl.int64) * rows + row, mask=slot < slots, other=-float("inf"))
        high = tl.maximum(best, tl.max(its, 0))
        anchor = tl.where(high == -float("inf"), 0.0, high)
        weights, keep = tl.exp(its - anchor), tl.exp(best - anchor)
        mask = (its > -float("inf"))[:, None] & (channel < DV)[None, :]
        place = (slot.to(tl.int64) * rows + row)[:, None] * DV + channel[None, :]
        found = tl.load(out + place, mask=mask, other=0.0)
        acc = acc * keep + tl.sum(weights[:, None] * found, 0)
        total = total * keep + tl.sum(weights, 0)
        best = high
    if sinks is not None:
        sink = tl.load(sinks + row // tokens).to(tl.float32)
        high = tl.maximum(best, sink)
        anchor = tl.where(high == -float("inf"), 0.0, high)
        keep = tl.exp(best - anchor)
        acc = acc * keep
        total = total * keep + tl.exp(sink - anchor)
        best = high
    some = total > 0
    heads = rows // tokens
    place = (row % tokens).to(tl.int64) * heads + row // tokens
    acc = acc / tl.where(some, total, 1.0)
    tl.store(to + place * DV + channel, acc.to(to.dtype.element_ty), mask=channel < DV)
    tl.store(to_lse + row, tl.where(some, best + tl.log(tl.where(some, total, 1.0)), -float("inf")))
