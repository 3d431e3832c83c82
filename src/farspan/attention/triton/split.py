"""The kernel: a block of query rows attends to one run of a head's entries, and says by which log-sum-exp.

Entries are cut into runs ("split-K"), so that few query rows fill a GPU too; what runs found is merged afterwards
(flash decoding; Dao et al. 2023). Rows are token after token, the G query heads of a key-value head within each, so
that grouped queries share what is read. Sums are float32 throughout; products are taken in `TYPE`.
"""
# Triton is an extra, and what stands under @triton.jit is its language, not Python's.
# pyright: reportMissingImports=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _product(a, b, INTERPRETED: tl.constexpr):
    if INTERPRETED:  # the interpreter multiplies the bit patterns of bfloat16 (triton issue 11584)
        return tl.dot(a.to(tl.float32), b.to(tl.float32))
    else:
        return tl.dot(a, b, input_precision="ieee")


@triton.jit
def _capped(scores, cap):
    """cap · tanh(scores / cap)."""
    return cap * (2.0 / (1.0 + tl.exp(-2.0 / cap * scores)) - 1.0)


@triton.jit
def _entries(
    start,
    scale,
    low,
    entry,
    inside,
    stride,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    BITS: tl.constexpr,
    ENTRIES: tl.constexpr,
    CHANNELS: tl.constexpr,
    ROW: tl.constexpr,
):
    """-> [entries, BLOCK] keys or values; of codes, one scale and low to ENTRIES entries and CHANNELS channels, ROW of
    them side by side.
    """
    channel = tl.arange(0, BLOCK)[None, :]
    mask = inside[:, None] & (channel < SIZE)
    entry = entry.to(tl.int64)[:, None]
    if BITS == 0:
        return tl.load(start + entry * stride + channel, mask=mask, other=0.0)
    else:
        PER_BYTE: tl.constexpr = 8 // BITS
        code = tl.load(start + entry * stride + channel // PER_BYTE, mask=mask, other=0).to(tl.int32)
        if BITS == 8:
            code += 128
        else:
            code = (code >> (channel % PER_BYTE * BITS)) & ((1 << BITS) - 1)
        at = entry // ENTRIES * ROW + channel // CHANNELS
        scales = tl.load(scale + at, mask=mask, other=0.0).to(tl.float32)
        return code.to(tl.float32) * scales + tl.load(low + at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _seen(position, inside, limit, window, visible, visible_head, visible_token, token, asked, head):
    """-> [rows, entries]: which entries each row may see; `limit` is one past the newest, None for no such bound."""
    seen = asked[:, None] & inside[None, :]
    if limit is not None:
        seen &= position[None, :] < limit[:, None]
        if window is not None:
            seen &= position[None, :] >= limit[:, None] - window
    if visible is not None:
        at = head.to(tl.int64) * visible_head + token.to(tl.int64)[:, None] * visible_token + position[None, :]
        seen &= tl.load(visible + at, mask=seen, other=0) != 0
    return seen


@triton.jit
def _softened(scores, best, total):
    """-> weights of these scores against the highest so far, that highest, what earlier weights keep, and the sum."""
    high = tl.maximum(best, tl.max(scores, 1))
    anchor = tl.where(high == -float("inf"), 0.0, high)  # of a row that has seen nothing yet
    weights = tl.exp(scores - anchor[:, None])
    keep = tl.exp(best - anchor)
    return weights, high, keep, total * keep + tl.sum(weights, 1)


@triton.jit
def _run(split, chunk, head, count, starts, gather_starts):
    """-> the head's first entry, its first gathered one, and which of them this program reads: begin..end."""
    first = tl.zeros([], tl.int64)
    chosen = tl.zeros([], tl.int64)
    many = count + first
    if starts is not None:
        first = tl.load(starts + head)
        many = tl.load(starts + head + 1) - first
    if gather_starts is not None:
        chosen = tl.load(gather_starts + head)
        many = tl.load(gather_starts + head + 1) - chosen
    begin = split * chunk
    return first, chosen, begin, tl.minimum(begin + chunk, many.to(tl.int32))


# fmt: off
@triton.jit(do_not_specialize=["count", "first_token", "token_count", "all_tokens", "slot", "window", "chunk"])
def attend_part(
    query, query_head, query_member, query_token,
    keys, key_head, key_entry, values, value_head, value_entry,
    key_scale, key_low, value_scale, value_low, group_starts,
    starts, count, gather, gather_starts, log_weights,
    visible, visible_head, visible_token,
    tokens, first_token, token_count, all_tokens,
    out, lse, slot, scaling, softcap, window, chunk,
    CAUSAL: tl.constexpr, G: tl.constexpr, D: tl.constexpr, DV: tl.constexpr,
    BITS: tl.constexpr, GROUP: tl.constexpr, VALUE_GROUP: tl.constexpr, VALUE_GROUPS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    TYPE: tl.constexpr, INTERPRETED: tl.constexpr,
):
    # fmt: on
    """Programs (runs of entries, blocks of rows, heads) -> out [slots, H, G, T, DV] and lse [slots, H, G, T].

    A run writes the rows of its tokens at `slot` plus its number. All that is None costs nothing: it is compiled out.
    """
    split, block, head = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row = block * BLOCK_M + tl.arange(0, BLOCK_M)
    token, member = row // G, row % G
    asked = token < token_count
    at = first_token + token
    if tokens is not None:
        at = tl.load(tokens + token, mask=asked, other=0)
    first, chosen, begin, end = _run(split, chunk, head, count, starts, gather_starts)
    limit = None
    if CAUSAL:
        limit = count - token_count + token + 1
        end = tl.minimum(end, count - token_count + (block * BLOCK_M + BLOCK_M - 1) // G + 1)
        if window is not None:
            begin = tl.maximum(begin, count - token_count + block * BLOCK_M // G + 1 - window)
    channel = tl.arange(0, BLOCK_D)
    place = query + head.to(tl.int64) * query_head + member * query_member + at.to(tl.int64) * query_token
    q = tl.load(place[:, None] + channel[None, :], mask=asked[:, None] & (channel < D)[None, :], other=0.0).to(TYPE)
    keys += head.to(tl.int64) * key_head + first * key_entry
    values += head.to(tl.int64) * value_head + first * value_entry
    if BITS > 0:
        key_scale += tl.load(group_starts + head) * D
        key_low += tl.load(group_starts + head) * D
        value_scale += first * VALUE_GROUPS
        value_low += first * VALUE_GROUPS
    best = tl.full([BLOCK_M], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    for start in range(begin, end, BLOCK_N):
        position = start + tl.arange(0, BLOCK_N)
        inside = position < end
        entry = position
        if gather is not None:
            entry = tl.load(gather + chosen + position, mask=inside, other=0)
        k = _entries(keys, key_scale, key_low, entry, inside, key_entry, D, BLOCK_D, BITS, GROUP, 1, D).to(TYPE)
        scores = _product(q, tl.trans(k), INTERPRETED) * scaling
        if softcap is not None:
            scores = _capped(scores, softcap)
        if log_weights is not None:
            scores += tl.load(log_weights + chosen + position, mask=inside, other=0.0)[None, :]
        seen = _seen(position, inside, limit, window, visible, visible_head, visible_token, token, asked, head)
        scores = tl.where(seen, scores, -float("inf"))
        weights, best, keep, total = _softened(scores, best, total)
        v = _entries(
            values, value_scale, value_low, entry, inside, value_entry, DV, BLOCK_DV, BITS, 1, VALUE_GROUP, VALUE_GROUPS
        ).to(TYPE)
        acc = acc * keep[:, None] + _product(weights.to(TYPE), v, INTERPRETED)
    found = total > 0
    acc = acc / tl.where(found, total, 1.0)[:, None]
    to = ((slot + split).to(tl.int64) * tl.num_programs(2) + head) * G + member
    to = to * all_tokens + at
    channel = tl.arange(0, BLOCK_DV)
    tl.store(out + to[:, None] * DV + channel[None, :], acc, mask=asked[:, None] & (channel < DV)[None, :])
    tl.store(lse + to, tl.where(found, best + tl.log(tl.where(found, total, 1.0)), -float("inf")), mask=asked)
