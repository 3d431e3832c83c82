"""One decode step of one layer's attention for many sequences that go on from one prefix.

Ours: forks of one read, so that the prefix is held once and attended once for all of them (Hydragen); each has a tail
of its own, as after some tokens of an answer. The peer is SDPA sequence by sequence, each over its own copy of prefix
and tail, through the view that groups queries by key-value head (the fastest route that torch has); `sdpa, one batch`
gives it all copies in one call.

A ratio is the peer's time over ours; above 1 ours is faster. The floor is the bytes that have to be read, the prefix
once and every tail, over the bandwidth, or the multiplications over the rate of a large matrix product, whichever takes
longer. `bytes held` compares what keys and values take; its floor is one prefix and the tails.

    python -m benchmarks.shared_prefix --prefix 16384 --sequences 64
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.attention_step import GROUP, HEADS, SIZE
from benchmarks.timing import Row, bandwidth, finish, interleaved, rate
from farspan.attention import Rows, attend
from farspan.cache import LayerCache
from farspan.plan import Plan
from farspan.runtime.packing import Packing

TAIL = 32


def forks(keys: Tensor, values: Tensor, count: int, plan: str, tails: list[tuple[Tensor, Tensor]]) -> list[Rows]:
    """A layer that holds the prefix keys, values [H, N, D] at a plan's precision, forked; each with its own tail."""
    base, prefix = LayerCache(0), keys.shape[1]
    base.tail.append(keys, values, 0)
    packing = Packing.of(Plan.parse(plan), None)
    base.seal_tail(packing and packing.at(base))
    layers = [base.fork() for _ in range(count)]
    for layer, (own_keys, own_values) in zip(layers, tails, strict=True):
        layer.tail.append(own_keys, own_values, prefix)
    return [Rows(layer, start, 1) for start, layer in enumerate(layers)]


def held(rows: list[Rows]) -> int:
    """Bytes of all sequences, what they share counted once."""
    extents = {id(extent): extent.nbytes for row in rows for extent in row.cache.extents}
    return sum(extents.values()) + sum(row.cache.tail.nbytes for row in rows)


def measured(prefix: int, sequences: int, repeats: int, speed: float, flops: float) -> list[Row]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, SIZE, generator=generator).bfloat16()

    keys, values = draw(HEADS, prefix), draw(HEADS, prefix)
    tails = [(draw(HEADS, TAIL), draw(HEADS, TAIL)) for _ in range(sequences)]
    query = draw(HEADS * GROUP, sequences)
    copies = [[torch.cat([prefix, own], 1) for prefix, own in zip((keys, values), tail, strict=True)] for tail in tails]
    whole = [torch.stack(column) for column in zip(*copies, strict=True)]  # [sequences, H, N, D]
    grouped = query.view(HEADS, GROUP, sequences, SIZE).permute(2, 0, 1, 3).contiguous()

    def one_by_one() -> None:
        for i in range(sequences):
            scaled_dot_product_attention(grouped[i : i + 1], whole[0][i : i + 1], whole[1][i : i + 1])

    runs: dict[str, Callable[[], object]] = {
        "sdpa": one_by_one,
        "sdpa, one batch": lambda: scaled_dot_product_attention(grouped, *whole),
    }
    del copies
    sizes = dict.fromkeys(runs, sum(each.nbytes for each in whole))
    for name, plan in (("bf16", "full"), ("int8", "int8"), ("int4", "int4")):
        rows = forks(keys, values, sequences, plan, tails)
        runs[name] = lambda rows=rows: attend(query, rows, SIZE**-0.5)
        sizes[name] = held(rows)
    times = interleaved(runs, repeats)
    least = 4 * HEADS * GROUP * SIZE * sequences * (prefix + TAIL) / flops
    floors = {name: max(sizes[name] / speed, least) for name in runs}
    table = [Row(name=name, size=prefix, ours=times[name], peer=times["sdpa"], floor=floors[name]) for name in runs]
    once = sizes["bf16"]
    for name in ("bf16", "int8", "int4"):
        fewest = min(once, sizes[name])
        table.append(
            Row(name=f"bytes held {name}", size=prefix, ours=sizes[name], peer=sizes["sdpa"], floor=fewest, unit="B")
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prefix", type=int, default=16384)
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    speed, flops = bandwidth(), rate()
    found = measured(given.prefix, given.sequences, given.repeats, speed, flops)
    facts = {"bandwidth": speed, "flops_per_second": flops, "sequences": given.sequences, "tail": TAIL}
    finish("shared prefix", found, {**facts, "heads": HEADS, "group": GROUP, "head_size": SIZE})


if __name__ == "__main__":
    main()
