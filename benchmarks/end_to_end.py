"""Read and ask with a whole model: a random Llama of 0.4B parameters, beside the same weights under transformers.

What `farspan bench` measures, at a size where matrix products and attention weigh what they weigh in real models. The
peer reads in one forward and answers with `generate` over a DynamicCache. The floor of a read is its FLOPs over the
rate of a large matrix product, measured first; the floor of a token is the bytes of weights and cache over the
bandwidth. A ratio is the peer's time over ours; above 1 ours is faster.

    python -m benchmarks.end_to_end --lengths 8192,32768
"""

from __future__ import annotations

import argparse

import farspan
from benchmarks.models import big, loaded
from benchmarks.timing import Row, bandwidth, finish, rate
from farspan.measure.bench import Speed, bench

PLANS = ("full", "int8", "int4", "snapkv:25%", "snapkv:10% | int4")
FAR, FAR_PLANS = 16384, ("full", "int4", "snapkv:10% | int4")  # from so many tokens on, a read takes minutes


def rows(model: farspan.Model, tokens: int, answer: int, repeats: int, flops: float, speed: float) -> list[Row]:
    """A read and a token for every plan."""
    found = bench(model, PLANS if tokens < FAR else FAR_PLANS, tokens=tokens, answer=answer, repeats=repeats)
    weights = sum(parameter.numel() for parameter in model.hf.parameters())
    layers = model.layout.layers
    pairs = sum(2 * layer.query_heads * layer.head_size for layer in layers) * found.tokens**2  # half of them, twice
    least = (2 * weights * found.tokens + pairs) / flops

    def both(ours: Speed) -> list[Row]:
        bytes_read = 2 * weights + ours.held_bytes
        return [
            Row(
                name=f"read {ours.name}",
                size=found.tokens,
                ours=ours.read_seconds,
                peer=found.peer.read_seconds,
                floor=least,
            ),
            Row(
                name=f"token {ours.name}",
                size=found.tokens,
                ours=ours.token_seconds,
                peer=found.peer.token_seconds,
                floor=bytes_read / speed,
            ),
        ]

    return [row for ours in found.plans for row in both(ours)]


def main() -> None:
    """Every length in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="8192")
    parser.add_argument("--tokens", type=int, default=32, help="of each answer")
    parser.add_argument("--repeats", type=int, default=2)
    given = parser.parse_args()
    model = loaded(big)
    flops, speed = rate(), bandwidth()
    table = [
        row
        for length in map(int, given.lengths.split(","))
        for row in rows(model, length, given.tokens, given.repeats, flops, speed)
    ]
    finish("end_to_end", table, {"flops_per_second": flops, "bytes_per_second": speed, "answer": given.tokens})


if __name__ == "__main__":
    main()
