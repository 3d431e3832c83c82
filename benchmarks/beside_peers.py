"""Read and ask with the 0.4B model of `end_to_end`, beside other toolkits with the same weights on the same tokens.

`kvpress`: its SnapKV press at a quarter of the entries (window and kernel as ours), dense while reading, the decision
at the end of each layer; our `layerwise` plan does the same, and our default, which decides chunk by chunk, reads in
bounded memory. `llama_cpp`: llama.cpp's Python bindings, bfloat16 weights, all held in 16 bits.

Each peer has an environment of its own under build/peers, made on first use, and a process of its own, which waits
while another works: all are measured in turn, and the first round does not count. A ratio is the peer's time over ours.
The floor of a read is its FLOPs over the rate of a large matrix product (a chunk sees at most what is held then), the
floor of a token the bytes of weights and cache over the bandwidth.

    python -m benchmarks.beside_peers kvpress --lengths 8192
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

import farspan
from benchmarks.models import big, loaded
from benchmarks.peers.environment import PEERS, python_of
from benchmarks.peers.process import Peer
from benchmarks.timing import Row, bandwidth, finish, rate
from farspan.measure.bench import QUESTION, code
from farspan.runtime.hf_plain import endless
from farspan.text import Asked

SHARE, WINDOW, KERNEL = 0.25, 32, 5
SNAPKV = f"snapkv:{SHARE:.0%}(window={WINDOW}, kernel={KERNEL})"
PLANS = {"kvpress": (f"{SNAPKV} | layerwise", SNAPKV), "llama_cpp": ("full", "int4")}


@dataclass(frozen=True)
class Times:
    """Seconds of a read and of each token after an answer's first, bytes held in between, and the answer."""

    read: float
    token: float
    held: int
    answer: tuple[int, ...]


def ours(model: farspan.Model, plan: str, text: str, tokens: int) -> Times:
    context = model.read(text, plan)
    answer = context.ask(Asked(QUESTION), generation_config=endless(tokens))
    each = (answer.timings.total - answer.timings.first_token) / (tokens - 1)
    return Times(context.cost.seconds, each, context.held_bytes, answer.token_ids)


def theirs(peer: Peer, ids: list[int], question: list[int], tokens: int) -> Times:
    seconds, held = peer.read(ids)
    took = peer.ask(question, tokens)
    return Times(seconds, (took.total - took.first) / (tokens - 1), held, tuple(took.tokens))


def measured(runs: dict[str, Callable[[], Times]], repeats: int) -> dict[str, Times]:
    """Medians, of runs in turn."""
    every: dict[str, list[Times]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            every[name].append(run())
    return {
        name: Times(median(t.read for t in each[1:]), median(t.token for t in each[1:]), each[-1].held, each[-1].answer)
        for name, each in every.items()
    }


def read_floor(model: farspan.Model, plan: str, tokens: int, flops: float) -> float:
    """Seconds that the read's multiplications alone would take."""
    weights = sum(parameter.numel() for parameter in model.hf.parameters())
    seen = tokens**2 / 2
    if plan == SNAPKV:  # a chunk of 1024 sees the budget that is held, and itself
        seen = min(seen, tokens * (SHARE * tokens + 512))
    pairs = sum(4 * layer.query_heads * layer.head_size for layer in model.layout.layers) * seen
    return (2 * weights * tokens + pairs) / flops


def start(peer: str, folder: Path, longest: int) -> Peer:
    """The peer's process, with the weights that lie in `folder`."""
    python = python_of(peer)
    if peer == "kvpress":
        return Peer(python, "benchmarks.peers.kvpress_snapkv", [str(folder), str(1 - SHARE), str(WINDOW), str(KERNEL)])
    threads = torch.get_num_threads()
    return Peer(python, "benchmarks.peers.llama_cpp_full", [str(folder), str(longest + 512), str(threads)])


def rows(
    model: farspan.Model, name: str, peer: Peer, length: int, tokens: int, repeats: int, flops: float, speed: float
) -> tuple[list[Row], bool]:
    """A read, a token and the bytes held of every plan; and whether the first of them answered as the peer did."""
    text = code(model, length)
    context = model.read(text)
    ids = context.token_ids.tolist()
    question = model.prompts.question(QUESTION, last=None, eos=model.eos).tolist()
    runs: dict[str, Callable[[], Times]] = {name: lambda: theirs(peer, ids, question, tokens)}
    runs |= {plan: lambda plan=plan: ours(model, plan, text, tokens) for plan in PLANS[name]}
    found = measured(runs, repeats)
    other = found.pop(name)
    weights = 2 * sum(parameter.numel() for parameter in model.hf.parameters())
    table = []
    for plan, its in found.items():
        floors = read_floor(model, plan, len(ids), flops), (weights + its.held) / speed
        short = plan.replace(SNAPKV, f"snapkv:{SHARE:.0%}")
        table += [
            Row(name=f"read {short}", size=len(ids), ours=its.read, peer=other.read, floor=floors[0]),
            Row(name=f"token {short}", size=len(ids), ours=its.token, peer=other.token, floor=floors[1]),
            Row(name=f"held {short}", size=len(ids), ours=its.held, peer=other.held, floor=its.held, unit="B"),
        ]
    return table, found[PLANS[name][0]].answer == other.answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--lengths", default="8192")
    parser.add_argument("--tokens", type=int, default=32, help="of each answer")
    parser.add_argument("--repeats", type=int, default=2)
    given = parser.parse_args()
    lengths = [int(length) for length in given.lengths.split(",")]
    model = loaded(big)
    flops, speed = rate(), bandwidth()
    with tempfile.TemporaryDirectory() as folder:
        model.hf.save_pretrained(folder)
        with start(given.peer, Path(folder), max(lengths)) as peer:
            found = [rows(model, given.peer, peer, n, given.tokens, given.repeats, flops, speed) for n in lengths]
    facts = {
        "peer": peer.about,
        "same_answer": [same for _, same in found],
        "flops_per_second": flops,
        "bytes_per_second": speed,
        "answer": given.tokens,
    }
    finish(f"beside {given.peer}", [row for table, _ in found for row in table], facts)


if __name__ == "__main__":
    main()
