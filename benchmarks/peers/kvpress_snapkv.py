"""kvpress with its SnapKV press, as its own pipeline reads and answers: run in the environment of `kvpress.txt`.

The read is one forward of the model's body under the press; the answer is greedy, a forward per token with positions
that go on after what was read, which is what its pipeline does (`generate` feeds evicted tokens again).

    python -m benchmarks.peers.kvpress_snapkv FOLDER RATIO WINDOW KERNEL
"""

from __future__ import annotations

import sys
import time
from importlib.metadata import version
from typing import Any

import kvpress
import torch
from transformers import AutoModelForCausalLM, DynamicCache

from benchmarks.peers.child import Took, serve


class Kvpress:
    def __init__(self, folder: str, ratio: float, window: int, kernel: int) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
        self.press = kvpress.SnapKVPress(compression_ratio=ratio, window_size=window, kernel_size=kernel)
        self.cache, self.seen = DynamicCache(), 0

    def read(self, ids: list[int]) -> tuple[float, int]:
        fed = torch.tensor([ids])
        self.cache, self.seen = DynamicCache(), len(ids)
        began = time.perf_counter()
        with self.press(self.model):
            self.model.model(input_ids=fed, past_key_values=self.cache)
        took = time.perf_counter() - began
        return took, sum(layer.keys.nbytes + layer.values.nbytes for layer in self.cache.layers)

    def ask(self, ids: list[int], tokens: int) -> Took:
        began, first = time.perf_counter(), 0.0
        feed, at, chosen = torch.tensor([ids]), self.seen, list[int]()
        while len(chosen) < tokens:
            places = torch.arange(at, at + feed.shape[1])[None]
            out = self.model(input_ids=feed, past_key_values=self.cache, position_ids=places, logits_to_keep=1)
            chosen.append(int(out.logits[0, -1].argmax()))
            first = first or time.perf_counter() - began
            feed, at = torch.tensor([chosen[-1:]]), at + feed.shape[1]
        return Took(first, time.perf_counter() - began, chosen)


def main(folder: str, ratio: str, window: str, kernel: str) -> None:
    peer = Kvpress(folder, float(ratio), int(window), int(kernel))
    about = {name: version(name) for name in ("kvpress", "transformers", "torch")}
    with torch.inference_mode():
        serve(peer.read, peer.ask, about)


if __name__ == "__main__":
    main(*sys.argv[1:])
