"""One decode step of one layer's attention, at every precision that entries are held in.

Peers, in the same process and interleaved with ours: torch's SDPA over a view that groups queries by key-value head
(the fastest route that torch has; keys are never repeated), SDPA with `enable_gqa`, and transformers' QuantizedCache,
which dequantises a layer before it attends (left out where its backend is not installed).

The floor of a row is the bytes it has to read over the bandwidth this machine reads memory with, measured first. That
of entries that lie anywhere is what torch's fastest sum of such rows takes, `embedding_bag`, with the same rows of the
same memory.
A ratio is the SDPA view's time over ours, of medians; above 1 ours is faster.

    python -m benchmarks.attention_step --lengths 4096,32768,131072
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, scaled_dot_product_attention

from benchmarks.timing import Row, bandwidth, finish, interleaved
from farspan.attention import native
from farspan.cache import DenseBlock, Extent, GroupBlock

HEADS, GROUP, SIZE = 8, 4, 128
CHOSEN = 2048
TOP, SUMMED = f"top {CHOSEN}", "their rows added up"


def extent(block: DenseBlock | GroupBlock, entries: int, counts: tuple[int, ...] | None = None) -> Extent:
    counts = counts or (entries,) * HEADS
    offsets = [0]
    for count in counts:
        offsets.append(offsets[-1] + count)
    positions = torch.cat([torch.arange(count, dtype=torch.int32) for count in counts])
    return Extent(block, positions, tuple(offsets), shared=False)


def step(query: Tensor, held: Extent, gather: Tensor | None = None) -> Callable[[], object]:
    """Attention of all heads to an extent, or to the entries [H, k] of it."""
    known = native.part_of(held)
    assert known is not None
    part = native.seen_by(known, slice(0, 1))
    kept: list[Tensor] = []
    if gather is not None:
        kept = [gather.int().contiguous(), torch.arange(0, gather.numel() + 1, gather.shape[1])]
        part.gather, part.gather_offsets = kept[0].data_ptr(), kept[1].data_ptr()

    def run() -> object:
        assert len(kept) in (0, 2)  # held here for as long as the kernel points at them
        return native.attend(query, HEADS, SIZE, SIZE**-0.5, [part], query.dtype)

    return run


def summed(keys: Tensor, values: Tensor, chosen: Tensor) -> Callable[[], object]:
    """The entries [H, k], each a row of 4-byte numbers whatever they are, added up by torch."""
    tables = [states.view(torch.float32).flatten(0, 1) for states in (keys, values)]
    index = (chosen + torch.arange(HEADS)[:, None] * keys.shape[1]).int().flatten()
    bags = torch.arange(0, index.numel(), CHOSEN).int()
    return lambda: [embedding_bag(index, table, bags, mode="sum") for table in tables]


def coded(keys: Tensor, values: Tensor, bits: int) -> Extent:
    group = 64 if bits == 8 else 32
    counts = (keys.shape[1],) * HEADS
    block = GroupBlock.pack(
        keys.flatten(0, 1), values.flatten(0, 1), counts, group, bits=bits, value_group=None if bits == 8 else group
    )
    return extent(block, keys.shape[1])


def rows(entries: int, speed: float, repeats: int) -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(HEADS * GROUP, 1, SIZE, generator=generator).bfloat16()
    keys, values = (torch.randn(HEADS, entries, SIZE, generator=generator).bfloat16() for _ in range(2))
    grouped = query.view(1, HEADS, GROUP, SIZE)
    wide = query.view(1, HEADS * GROUP, 1, SIZE)
    dense = extent(DenseBlock(keys.flatten(0, 1), values.flatten(0, 1)), entries)
    every = {"bf16": dense, **{f"int{bits}": coded(keys, values, bits) for bits in (8, 4, 2)}}
    chosen = torch.stack([torch.randperm(entries, generator=generator)[:CHOSEN].sort().values for _ in range(HEADS)])
    counts = tuple(entries // 2 * share // 4 for share in (1, 1, 1, 1, 2, 2, 4, 4))  # a quarter of all, unevenly
    ragged_keys = torch.cat([keys[h, :n] for h, n in enumerate(counts)])
    ragged_values = torch.cat([values[h, :n] for h, n in enumerate(counts)])
    ragged = extent(DenseBlock(ragged_keys, ragged_values), 0, counts)
    runs: dict[str, Callable[[], object]] = {
        "sdpa view": lambda: scaled_dot_product_attention(grouped, keys[None], values[None]),
        "sdpa enable_gqa": lambda: scaled_dot_product_attention(wide, keys[None], values[None], enable_gqa=True),
        **{name: step(query, held) for name, held in every.items()},
        "ragged, mean 25%": step(query, ragged),
    }
    sizes = {name: held.nbytes for name, held in every.items()} | {"ragged, mean 25%": ragged.nbytes}
    sizes |= {"sdpa view": dense.nbytes, "sdpa enable_gqa": dense.nbytes}
    if entries > CHOSEN:
        runs[TOP], runs[SUMMED] = step(query, dense, chosen), summed(keys, values, chosen)
    times = interleaved(runs, repeats)
    peer, least = times["sdpa view"], {TOP: times.pop(SUMMED, 0.0)}
    return [
        Row(name=name, size=entries, ours=seconds, peer=peer, floor=least.get(name) or sizes[name] / speed)
        for name, seconds in times.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="4096,32768")
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    speed = bandwidth()
    found = [row for n in map(int, given.lengths.split(",")) for row in rows(n, speed, given.repeats)]
    finish("attention step", found, {"bandwidth": speed, "heads": HEADS, "group": GROUP, "head_size": SIZE})


if __name__ == "__main__":
    main()
