"""Attention of a whole read under patterns, beside the dense read of the same text.

One layer of a realistic shape, random keys and queries in bfloat16, read chunk by chunk as the reader does: every
chunk is appended to the tail and attends. `window` is A-shape; `triangle` is a deep layer of TriangleMix, with its
last rows dense; `trianglemix` is a model of which half the layers are deep (their mean time with that of dense ones).

The ratio is the time of a dense read through torch's flash kernel over ours, both of one run. `dense` is our own dense
read, and says what of a ratio is due to the kernel: where the machine multiplies matrices of bfloat16, it is the one
that patterns go through too. The floor is its time multiplied with the pattern's share of the pairs that a dense read
computes, so `of floor` says how much of the saving arrives: cost is at most 1.5 times the share of our own dense
read's FLOPs where it is 67% or more.
Rows named `peak` are the process's resident memory at most while it reads, beyond what it had before, beside the dense
read through torch: the layer's keys and values, which are their floor, and what reading them takes besides; the queries
of the whole text are given.

Lengths beyond 32,768 are read once, since a dense read of 131,072 tokens takes minutes.

    python -m benchmarks.prefill_patterns --lengths 8192,32768,65536,131072 --windows 1024,2048
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from benchmarks.process import peak, reset_peak
from benchmarks.timing import Row, finish
from farspan.attention import Rows, attend, backend
from farspan.cache import LayerCache
from farspan.methods.order.base import equal_chunks
from farspan.methods.prefill.ashape import Ashape
from farspan.methods.prefill.base import Chunk, Prefill
from farspan.methods.prefill.trianglemix import Trianglemix

HEADS, GROUP, SIZE = 8, 4, 128
SINKS, LAST = 64, 128
OFTEN = 32768  # tokens up to which a read is repeated
PEER = "dense through torch"


@contextmanager
def forced(route: str) -> Iterator[None]:
    """Attention goes this way, whatever was chosen."""
    before = os.environ.get("FARSPAN_KERNELS")
    os.environ["FARSPAN_KERNELS"] = route
    backend.cache_clear()
    try:
        yield
    finally:
        os.environ.pop("FARSPAN_KERNELS") if before is None else os.environ.update(FARSPAN_KERNELS=before)
        backend.cache_clear()


def read(query: Tensor, keys: Tensor, values: Tensor, method: Prefill | None, chunk: int) -> None:
    """query [Hq, N, D], keys and values [H, N, D]: all chunks of one layer, the second of two."""
    layer, total = LayerCache(1), keys.shape[1]
    for start, stop in equal_chunks(total, chunk):
        layer.tail.append(keys[:, start:stop], values[:, start:stop], start, total)
        asked = query[:, start:stop]
        pattern = None
        if method is not None:
            pattern = method.pattern(
                Chunk(
                    layer=1,
                    layers=2,
                    heads=HEADS,
                    start=start,
                    total=total,
                    queries=asked,
                    scaling=SIZE**-0.5,
                    held=layer,
                )
            )
        attend(asked, [Rows(layer, 0, stop - start, pattern)], SIZE**-0.5)


def share(length: int, window: int, last: int) -> float:
    """Of the pairs of a dense read: those in the window and the sinks, and all of the last rows."""
    seen = 0
    for position in range(length):
        near = min(position + 1, window)
        dense = position >= length - last
        seen += position + 1 if dense else near + min(SINKS, position + 1 - near)
    return seen / (length * (length + 1) // 2)


def measured(runs: Mapping[str, Callable[[], None]], repeats: int) -> tuple[dict[str, float], dict[str, int]]:
    """Median seconds of each, run in turn, and bytes of resident memory at most, beyond those before. Of several rounds
    the first counts for memory alone.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    peaks = dict.fromkeys(runs, 0)
    with torch.inference_mode():
        for _ in range(repeats + (repeats > 1)):
            for name, run in runs.items():
                reset_peak()
                before, began = peak(), time.perf_counter()
                run()
                times[name].append(time.perf_counter() - began)
                peaks[name] = max(peaks[name], peak() - before)
    return {name: statistics.median(each[repeats > 1 :]) for name, each in times.items()}, peaks


def rows(length: int, windows: list[int], chunk: int, repeats: int) -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(HEADS * GROUP, length, SIZE, generator=generator).bfloat16()
    keys, values = (torch.randn(HEADS, length, SIZE, generator=generator).bfloat16() for _ in range(2))

    def reading(method: Prefill | None) -> Callable[[], None]:
        return lambda: read(query, keys, values, method, chunk)

    def through_torch() -> None:
        with forced("torch"):
            read(query, keys, values, None, chunk)

    runs, shares = {PEER: through_torch, "dense": reading(None)}, {"dense": 1.0}
    for window in windows:
        runs[f"window {window}"] = reading(Ashape(sinks=SINKS, window=window))
        runs[f"triangle {window}"] = reading(Trianglemix(start=1, sinks=SINKS, window=window, last=LAST))
        shares[f"window {window}"] = share(length, window, 0)
        shares[f"triangle {window}"] = share(length, window, LAST)
    times, peaks = measured(runs, repeats if length <= OFTEN else 1)
    peer, most, dense = times.pop(PEER), peaks.pop(PEER), times["dense"]
    for window in windows:
        times[f"trianglemix {window}"] = (dense + times[f"triangle {window}"]) / 2
        shares[f"trianglemix {window}"] = (1 + shares[f"triangle {window}"]) / 2
    held = keys.nbytes + values.nbytes
    return [
        *(Row(name=n, size=length, ours=s, peer=peer, floor=dense * shares[n]) for n, s in times.items()),
        *(Row(name=f"peak {n}", size=length, ours=b, peer=most, floor=held, unit="B") for n, b in peaks.items()),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="8192,32768,65536,131072")
    parser.add_argument("--windows", default="1024,2048")
    parser.add_argument("--chunk", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3, help="of lengths to 32,768; longer ones are read once")
    given = parser.parse_args()
    windows = [int(n) for n in given.windows.split(",")]
    found = [row for n in map(int, given.lengths.split(",")) for row in rows(n, windows, given.chunk, given.repeats)]
    facts = {"heads": HEADS, "group": GROUP, "head_size": SIZE, "sinks": SINKS, "last": LAST, "chunk": given.chunk}
    finish("prefill patterns", found, facts)


if __name__ == "__main__":
    main()
