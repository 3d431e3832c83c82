"""One decode step of one layer that reads 2,048 chosen entries, beside one that reads all.

Apart: attending to what is chosen already, choosing it by each index, and the whole step as answering runs it (choose,
sinks and recent entries, attend). Peer of every row is torch's SDPA over a view that groups queries by key-value head,
reading everything, in the same process and interleaved with ours. A ratio is the peer's time over ours, of medians.

The floor of a row is the bytes that it has to read over the bandwidth this machine reads memory with, measured first:
chosen keys and values, or the index, or both.

    python -m benchmarks.fetch_step --lengths 32768,131072
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.timing import Row, bandwidth, finish, interleaved
from farspan.attention import Rows, attend
from farspan.attention.fetched import Chosen, Gather
from farspan.cache import LayerCache, SequenceCache
from farspan.methods.fetch.base import Fetch
from farspan.plan import Plan
from farspan.runtime.fetching import Fetching

HEADS, GROUP, SIZE, CHOSEN = 8, 4, 128, 2048
SCALING = SIZE**-0.5
METHODS = ("infllm:2048(recent=64, sinks=4)", "quest:2048", "quest:2048(page=64)", "topk:2048")


@dataclass(frozen=True)
class Fixed:
    """Entries that were chosen beforehand."""

    chosen: Chosen

    def choose(self, query: Tensor, scaling: float) -> list[Chosen]:
        """The same, whoever asks."""
        return [self.chosen]


def held(entries: int) -> tuple[SequenceCache, LayerCache]:
    """A layer of random entries, one extent and the newest token."""
    generator = torch.Generator().manual_seed(0)
    keys, values = (torch.randn(HEADS, entries, SIZE, generator=generator).bfloat16() for _ in range(2))
    layer = LayerCache(0)
    layer.tail.append(keys, values, 0)
    layer.seal_tail(None)
    layer.tail.append(keys[:, :1], values[:, :1], entries)
    cache = SequenceCache([layer])
    cache.seen = cache.next_position = entries
    return cache, layer


def rows(entries: int, speed: float, repeats: int) -> list[Row]:
    cache, layer = held(entries)
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(HEADS * GROUP, 1, SIZE, generator=generator).bfloat16()
    whole = layer.extents[0].pieces()
    piece = next(iter(whole))
    grouped = query.view(1, HEADS, GROUP, SIZE)
    slots = tuple(torch.randperm(entries, generator=generator)[:CHOSEN].sort().values for _ in range(HEADS))
    fixed = Fixed(Chosen(0, 1, [Gather(layer.extents[0], slots)]))
    entry = HEADS * SIZE * 4  # bytes of a key and a value, in all heads
    runs: dict[str, Callable[[], object]] = {
        "sdpa view, everything": lambda: scaled_dot_product_attention(grouped, piece.keys[None], piece.values[None]),
        "farspan, everything": lambda: attend(query, [Rows(layer, 0, 1)], SCALING),
        f"attend to {CHOSEN}": lambda: attend(query, [Rows(layer, 0, 1, fetch=fixed)], SCALING),
    }
    least = {name: entries * entry for name in runs} | {f"attend to {CHOSEN}": CHOSEN * entry}
    times: dict[str, float] = {}
    for text in METHODS:
        fetching = Fetching.of(Plan.parse(text))
        assert fetching is not None
        layer.extents[0].index = None
        fetching.index(layer)
        index = layer.extents[0].index
        assert index is not None
        looked_at = index.nbytes or entries * entry // 2
        choice = fetching.at(cache, layer, entries, 0, False)
        assert choice is not None and isinstance(fetching.method, Fetch)
        steps: dict[str, Callable[[], object]] = {
            f"choose, {text}": lambda choice=choice: list(choice.choose(query, SCALING)),
            f"whole step, {text}": lambda choice=choice: attend(query, [Rows(layer, 0, 1, fetch=choice)], SCALING),
        }
        least |= dict(zip(steps, (looked_at, looked_at + CHOSEN * entry), strict=True))
        times |= interleaved({**runs, **steps}, repeats)  # one index at a time: an extent has one
    peer = times["sdpa view, everything"]
    return [
        Row(name=name, size=entries, ours=seconds, peer=peer, floor=least[name] / speed)
        for name, seconds in times.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="32768")
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    speed = bandwidth()
    found = [row for n in map(int, given.lengths.split(",")) for row in rows(n, speed, given.repeats)]
    facts = {"bandwidth": speed, "heads": HEADS, "group": GROUP, "head_size": SIZE, "chosen": CHOSEN}
    finish("fetch step", found, facts)


if __name__ == "__main__":
    main()
