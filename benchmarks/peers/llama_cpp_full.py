"""llama.cpp through its Python bindings, bfloat16 weights and a full 16-bit cache: run in the environment of
`llama_cpp.txt`.

    python -m benchmarks.peers.llama_cpp_full FOLDER TOKENS THREADS
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import llama_cpp

from benchmarks.peers.child import Took, serve
from benchmarks.peers.gguf_file import write


class LlamaCpp:
    def __init__(self, folder: str, tokens: int, threads: int) -> None:
        file = Path(folder) / "model.gguf"
        if not file.exists():
            write(Path(folder), file)
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        heads = config["num_key_value_heads"] * config["head_dim"]
        self.entry = 2 * 2 * heads * config["num_hidden_layers"]  # bytes of a token's keys and values
        self.model = llama_cpp.Llama(
            str(file), n_ctx=tokens, n_batch=1024, n_ubatch=1024, n_threads=threads, n_threads_batch=threads,
            verbose=False,
        )  # fmt: skip

    def read(self, ids: list[int]) -> tuple[float, int]:
        self.model.reset()
        began = time.perf_counter()
        self.model.eval(ids)
        return time.perf_counter() - began, self.entry * len(ids)

    def ask(self, ids: list[int], tokens: int) -> Took:
        began, first, chosen = time.perf_counter(), 0.0, list[int]()
        while len(chosen) < tokens:
            self.model.eval(ids)
            chosen.append(self.model.sample(temp=0.0))
            first = first or time.perf_counter() - began
            ids = chosen[-1:]
        return Took(first, time.perf_counter() - began, chosen)


def main(folder: str, tokens: str, threads: str) -> None:
    peer = LlamaCpp(folder, int(tokens), int(threads))
    serve(peer.read, peer.ask, {"llama-cpp-python": version("llama-cpp-python")})


if __name__ == "__main__":
    main(*sys.argv[1:])
