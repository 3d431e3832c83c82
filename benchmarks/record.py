"""Keep what a benchmark printed: `python -m benchmarks.attention_step | python -m benchmarks.record`.

What comes is passed on; its last line, one JSON document, goes to benchmarks/results/, a file for each benchmark,
attention route and number of threads; and docs/benchmarks.md is made anew of all that lies there.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.timing import said

RESULTS, PAGE = Path("benchmarks/results"), Path("docs/benchmarks.md")
MiB = 1024**2
SIZES = ("full_bytes", "held_bytes", "alone", "peak")
HEAD = """\
# Benchmarks

Made by `make bench-all`, on a machine that did nothing else. A ratio is the peer's time over ours: above 1 farspan is
faster (or holds less, where rows are bytes). The floor is the least that the machine allows (bytes over bandwidth, or
operations over rate), and its share says how near ours comes. What each row and peer is stands at the head of the
script.
"""
AIMS: Mapping[tuple[str, str, int], float] = {
    ("attention step", "int8", 131072): 3.0,
    ("attention step", "int4", 131072): 4.5,
    ("attention step", "int2", 131072): 6.0,
    ("attention step", "bf16", 131072): 1.3,
    ("attention step", "top 2048", 131072): 50.0,
    ("attention step", "ragged, mean 25%", 131072): 3.7,
    ("end_to_end", "read full", 8192): 1.0,
    ("end_to_end", "token full", 32768): 1.3,
    ("end_to_end", "token int4", 32768): 1.6,
    ("shared prefix", "bf16", 16384): 9.0,
    ("prefill patterns", "window 1024", 32768): 10.2,
    ("prefill patterns", "triangle 1024", 32768): 9.15,
    ("prefill patterns", "window 2048", 32768): 5.34,
    ("prefill patterns", "triangle 2048", 32768): 5.05,
    ("overhead", "beyond the forward", 2048): 2.0,
}
"""(benchmark, row, size) -> the ratio that was aimed at; of patterns, that of 1.5 times their share of dense pairs."""

NOTES: Mapping[str, str] = {
    "attention step": (
        "Where aims are missed: the floor is memory alone, at the bandwidth of one long sum. Codes of 4 and 2 bits are "
        "bound by computing instead, for an entry takes about as long at 131,072 as at 4,096, where all lie in the "
        "caches: fewer bytes no longer help. Entries that are looked up lie anywhere, and "
        "their floor is torch's sum of the same rows, which attends to nothing."
    ),
    "weights": (
        "Peer is the same model with its weights as they are. Codes of 8 bits halve what a token reads, and are turned "
        "back into numbers for whatever has more than four rows: a question's first token waits for that. `packed` are "
        "the same numbers in blocks. torch.compile of norms and feed-forward blocks shortens reads, not answers, which "
        "is why no option of ours does it."
    ),
    "prefill patterns": (
        "Aims are 1.5 times the share of dense pairs, beside a dense read through torch's kernel, at 1.0 TFLOP/s. "
        "Our own takes 59% of its time at 32,768, and beside that one a window of 1,024 costs 1.3 times its share, a "
        "triangle of 2,048 1.5 times: tiles at its edges, layout of keys for every item of rows, and what each "
        "read copies."
    ),
    "overhead": "Ours takes less than the model's own forward does with its DynamicCache: it adds nothing to it.",
}
"""Under a table: what figures do not say themselves."""


def kept(document: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write one result to its file."""
    machine = document["machine"]
    route = re.sub(r"\W+", "-", machine["attention"].split(":")[0] + "-" + _instructions(machine["attention"]))
    name = f"{document['benchmark'].replace(' ', '_')}-{route.strip('-')}-{machine['threads']}threads.json"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return folder / name


def _instructions(said: str) -> str:
    found = re.search(r"with (\w+) instructions", said)
    return found[1] if found else ""


def page(folder: Path = RESULTS) -> str:
    """All results as one page."""
    blocks = [HEAD]
    for file in sorted(folder.glob("*.json")):
        document = json.loads(file.read_text(encoding="utf-8"))
        machine = document["machine"]
        where = f"{machine['attention']}; {machine['threads']} threads; torch {machine['torch']}"
        table = _memory if document["benchmark"] == "memory" else _table
        blocks += [f"## {document['benchmark']}\n\n{where}", table(document), NOTES.get(document["benchmark"], "")]
    return "\n\n".join(block.strip() for block in blocks if block) + "\n"


def _aim(benchmark: str, name: str, size: int) -> float | None:
    """What was aimed at near this size: a text is not cut to the token."""
    near = (aim for (b, n, s), aim in AIMS.items() if (b, n) == (benchmark, name) and abs(size - s) <= s / 100)
    return next(near, None)


def _table(document: Mapping[str, Any]) -> str:
    lines = ["| | size | ratio | aim | ours | peer | floor | share of floor |", "|---|---|---|---|---|---|---|---|"]
    for row in document["rows"]:
        aim = _aim(document["benchmark"], row["name"], row["size"])
        met = "" if aim is None else f"{aim:g}, {'met' if row['ratio'] >= aim else 'missed'}"
        times = " | ".join(said(row[name], row.get("unit", "s")) for name in ("ours", "peer", "floor"))
        name = row["name"].replace("|", "\\|")
        lines.append(
            f"| {name} | {row['size']:,} | {row['ratio']:.2f} | {met} | {times} | {row['share_of_floor']:.0%} |"
        )
    return "\n".join(lines)


def _memory(document: Mapping[str, Any]) -> str:
    lines = [
        "Growth of a process's proportional set size, in MiB, beside the bytes of the full cache. An aim is a share of "
        f"these, give or take {document['slack'] / MiB:g} MiB; of an answer, no growth from its first tenth on.\n",
        "| | tokens | full | reported | grown | of full | aim | without files | peak while reading |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        sizes = {key: f"{row[key] / MiB:,.1f}" if key in row else "" for key in (*SIZES, "grown")}
        share = f"{row['share']:.2%}" if "share" in row else ""
        aim = "" if row["met"] is None else f"{row['aim']:.1%}, {'met' if row['met'] else 'missed'}"
        name = row["name"].replace("|", "\\|")
        figures = (sizes["full_bytes"], sizes["held_bytes"], sizes["grown"], share, aim, sizes["alone"], sizes["peak"])
        lines.append(f"| {name} | {row['tokens']:,} | {' | '.join(figures)} |")
    return "\n".join(lines)


def main() -> None:
    """Pass on, keep, make the page."""
    last = ""
    for line in sys.stdin:
        print(line, end="", flush=True)
        last = line if line.strip() else last
    try:
        document = json.loads(last)
    except ValueError:
        sys.exit("the last line is no JSON document: the benchmark did not end")
    print(f"kept in {kept(document)}", file=sys.stderr)
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
