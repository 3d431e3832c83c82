"""How small a context gets by the codec, and what that costs: bytes against fp16 and 8 bits, and the text that follows.

Reads a module of Python's standard library with the embedded model, saves the context at every level, opens it, and
judges how likely the next part of the same text is. Then sends it, chunk by chunk, over lines of several bandwidths, to
be there in half the time that reading took: as text to read again, or at some level.
`python -m benchmarks.codec [characters]`; ends with a JSON line.
"""

from __future__ import annotations

import argparse
import inspect
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import farspan
from farspan.cache import CachegenBlock, DenseBlock
from farspan.cache.cachegen import LEVELS, bin_of
from farspan.cache.delivery import Piece, deliver
from farspan.context import Context


def entries_of(context: Context) -> int:
    """Numbers held in sealed extents: keys and values of all heads and layers."""
    blocks = [extent.block for layer in context._cache.layers for extent in layer.extents]
    return sum(b.keys.numel() + b.values.numel() for b in blocks if isinstance(b, DenseBlock))


def coded(context: Context, level: int) -> list[CachegenBlock]:
    """The entries of every layer at a level; of a context read layer by layer, one block each."""
    layers = context._cache.layers
    return [
        CachegenBlock.encode(extent.block, extent.counts, bin_of(layer.index, len(layers), level))
        for layer in layers
        for extent in layer.extents
    ]


def coded_bytes(context: Context, level: int) -> int:
    """Bytes of the coded entries alone, without token ids, positions and manifest."""
    return sum(block.nbytes for block in coded(context, level))


def pieces(context: Context, characters: int) -> list[Piece]:
    """The context in chunks that are decoded each by itself; their text and its reading in equal shares."""
    by_level = [coded(context, level) for level in range(len(LEVELS))]
    count = len(by_level[0][0].lengths)
    return [
        Piece(
            sizes=tuple(sum(block.lengths[i] for block in blocks) for blocks in by_level),
            text_bytes=characters // count,
            reading_seconds=context.cost.seconds / count,
        )
        for i in range(count)
    ]


def sent(context: Context, characters: int) -> list[dict[str, Any]]:
    """What is sent over lines on which the default level would take 1/4 to 16 times as long as there is."""
    chunks, deadline = pieces(context, characters), context.cost.seconds / 2
    rows = []
    for times in (0.25, 0.5, 1, 2, 4, 16):
        bandwidth = sum(piece.sizes[1] for piece in chunks) / (times * deadline)
        choices = deliver(chunks, [bandwidth] * len(chunks), deadline)
        forms = ["text" if choice.level is None else str(choice.level) for choice in choices]
        seconds = sum(choice.seconds for choice in choices)
        rows.append({"bandwidth": bandwidth, "deadline": deadline, "forms": forms, "seconds": seconds})
    return rows


def perplexity(context: Context, text: str) -> float:
    judged = context.score(text)
    return math.exp(-sum(judged.logprobs) / len(judged.logprobs))


def measure(characters: int) -> dict[str, Any]:
    source = inspect.getsource(argparse)
    text, following = source[:characters], source[characters : characters + 4000]
    model = farspan.load()
    context = model.read(text, "layerwise")
    numbers = entries_of(context)
    rows: list[dict[str, Any]] = [
        {"form": "fp16", "bytes": 2 * numbers, "perplexity": perplexity(context, following)},
        {"form": "8 bits", "bytes": model.read(text, "int8 | layerwise").held_bytes,
         "perplexity": perplexity(model.read(text, "int8 | layerwise"), following)},
        {"form": "4 bits", "bytes": model.read(text, "int4 | layerwise").held_bytes,
         "perplexity": perplexity(model.read(text, "int4 | layerwise"), following)},
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for level in range(len(LEVELS)):
            began = time.perf_counter()
            path = context.save(Path(folder) / f"{level}.ctx", codec="cachegen", level=level)
            saved, began = time.perf_counter() - began, time.perf_counter()
            opened = model.open(path)
            for layer in opened._cache.layers:
                for extent in layer.extents:
                    _ = extent.block
            seconds = time.perf_counter() - began
            rows.append(
                {
                    "form": f"cachegen {level}",
                    "bytes": coded_bytes(context, level),
                    "file": path.stat().st_size,
                    "perplexity": perplexity(opened, following),
                    "save_s": saved,
                    "open_s": seconds,
                }
            )
    for row in rows:
        row["bits"], row["of_fp16"] = row["bytes"] * 8 / numbers, row["bytes"] / rows[0]["bytes"]
        row["of_8_bits"] = row["bytes"] / rows[1]["bytes"]
    return {"tokens": context.seen, "numbers": numbers, "rows": rows, "sent": sent(context, len(text))}


def main() -> None:
    torch.set_num_threads(1)
    result = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 24_000)
    print(f"{result['tokens']:,} tokens of argparse.py; perplexity of the next 4,000 characters\n")
    print(f"{'form':12}{'bytes':>12}{'bits':>7}{'of fp16':>9}{'of 8 bits':>11}{'perplexity':>12}")
    for row in result["rows"]:
        print(
            f"{row['form']:12}{row['bytes']:>12,}{row['bits']:>7.2f}{row['of_fp16']:>9.3f}{row['of_8_bits']:>11.3f}"
            f"{row['perplexity']:>12.4f}"
        )
    print("\nchunk by chunk: kB/s, seconds there are, seconds taken, form of each chunk")
    for row in result["sent"]:
        print(f"{row['bandwidth'] / 1e3:10,.0f}{row['deadline']:8.2f}{row['seconds']:8.2f}  {' '.join(row['forms'])}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
