"""How time and memory grow with length.

Three plans beside transformers, on the 28M model of `overhead`. `read` and `token` are what `farspan bench` measures,
at each length. `peak` is how much the resident memory of a process grows while it reads (its high-water mark, set back
before), each in a process of its own that reads something short first; ours from text on, the peer's from token ids,
in transformers' one forward with its DynamicCache.

A ratio is the peer's over ours, at the same length. Floors: a read's FLOPs over the rate of a large matrix product, a
token's bytes of weights and cache over the bandwidth, the bytes that are held in the end. `exponents` says how each row
grows: 1 in proportion to the length, 2 with its square, 0 not at all (of the logarithm, by least squares).

    python -m benchmarks.growth --lengths 2048,4096,8192
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import farspan
from benchmarks.models import loaded, small
from benchmarks.timing import Row, bandwidth, finish, rate
from farspan.measure.bench import PEER, bench, code
from farspan.runtime.hf_plain import Plain

PLANS = ("full", "snapkv:10%", "int4")
WARM = 512  # tokens read before, so that what is loaded or built once does not count


def timed(model: farspan.Model, length: int, repeats: int, flops: float, speed: float) -> list[Row]:
    """A read and a token of each plan."""
    found = bench(model, PLANS, tokens=length, answer=32, repeats=repeats)
    weights = sum(parameter.numel() for parameter in model.hf.parameters())
    pairs = sum(2 * layer.query_heads * layer.head_size for layer in model.layout.layers) * found.tokens**2
    linear = 2 * weights * found.tokens
    table = []
    for ours in found.plans:
        floors = (
            (linear + pairs * (0.2 if "snapkv" in ours.name else 1.0)) / flops,
            (2 * weights + ours.held_bytes) / speed,
        )
        for what, mine, theirs, floor in (
            ("read", ours.read_seconds, found.peer.read_seconds, floors[0]),
            ("token", ours.token_seconds, found.peer.token_seconds, floors[1]),
        ):
            table.append(Row(name=f"{what} {ours.name}", size=length, ours=mine, peer=theirs, floor=floor))
    return table


def grown(plan: str, length: int) -> dict[str, int]:
    """Bytes that reading adds to the resident memory of a fresh process at most, and bytes held in the end."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.growth", "--alone", plan, "--lengths", str(length)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def alone(plan: str, length: int) -> dict[str, int]:
    """What `grown` asks of the other process."""
    model = loaded(small)
    text, warm = code(model, length), code(model, WARM)
    if plan == PEER:
        context = model.read(warm)
        plain, ids = Plain(model.runtime(context.positions).prepared), model.tokenizer(text, return_tensors="pt")
        plain.read(context.token_ids.long())
        before = _reset()
        cache, _ = plain.read(ids["input_ids"][0])
        held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
        return {"grown": _peak() - before, "held": held}
    model.read(warm, plan)
    before = _reset()
    context = model.read(text, plan)
    return {"grown": _peak() - before, "held": context.held_bytes}


def _peak() -> int:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _reset() -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def peaks(length: int) -> list[Row]:
    """Memory while reading, where Linux tells it."""
    if not Path("/proc/self/clear_refs").exists():
        return []
    theirs = grown(PEER, length)["grown"]
    rows = []
    for plan in PLANS:
        ours = grown(plan, length)
        floor = ours["held"]
        rows.append(Row(name=f"peak {plan}", size=length, ours=ours["grown"], peer=theirs, floor=floor, unit="B"))
    return rows


def exponents(table: Sequence[Row]) -> dict[str, dict[str, float]]:
    """By row: how ours and the peer's grow with length."""
    found = {}
    for name in dict.fromkeys(row.name for row in table):
        its = [row for row in table if row.name == name]
        logs = np.log([row.size for row in its])
        if len(its) > 1:
            values = {"ours": [row.ours for row in its], "peer": [row.peer for row in its]}
            found[name] = {who: round(float(np.polyfit(logs, np.log(v), 1)[0]), 2) for who, v in values.items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="2048,4096,8192")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--alone", metavar="PLAN", help="read once and say what it took; what other processes run")
    given = parser.parse_args()
    lengths = [int(length) for length in given.lengths.split(",")]
    if given.alone:
        print(json.dumps(alone(given.alone, lengths[0])))
        return
    model, flops, speed = loaded(small), rate(), bandwidth()
    table = [row for n in lengths for row in timed(model, n, given.repeats, flops, speed)]
    table += [row for n in lengths for row in peaks(n)]
    known = exponents(table)
    for name, its in known.items():
        print(f"{name:28} grows as length^{its['ours']:.2f}, the peer as length^{its['peer']:.2f}")
    finish("growth", table, {"exponents": known, "flops_per_second": flops, "bytes_per_second": speed})


if __name__ == "__main__":
    main()
