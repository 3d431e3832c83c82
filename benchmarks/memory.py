"""What a context takes of a process's memory: growth of proportional set size, beside the full cache's bytes.

A random Llama in bfloat16 that is almost nothing but keys and values: 16 layers of 64 key-value heads of 128 numbers,
two query heads to each, over 128 hidden units. 4,096 tokens make a full cache of 2 GiB, and reading them costs little
beside that. Every plan reads the text in a process of its own, a first time so that everything is loaded and compiled,
and a second time to be measured; freed memory is given back before anything is counted. `alone` is what of the growth
no file stands behind: shares of libraries that other processes use too come and go with these. The peak is of resident
memory, with all that reading needs: queries, keys, values and outputs of one chunk in one layer take 0.1 GiB here.

The last row is an answer of 20,000 tokens by a small model whose plan bounds what answers hold: growth from the
2,000th token to the last.

    python -m benchmarks.memory
"""

from __future__ import annotations

import argparse
import inspect
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import farspan
from benchmarks.process import peak, pss, reset_peak
from benchmarks.timing import machine
from farspan.runtime.hf_plain import endless

MiB = 1024**2
SLACK = 8 * MiB
LEAST = 2 * 1024**3  # bytes of the full cache: below this, what a process does besides would show
AIMS: Mapping[str, float] = {
    "window:10%": 0.105,
    "snapkv:10%": 0.105,
    "adakv:10% | snapkv": 0.105,
    "snapkv:10% | int4": 0.035,
    "snapkv:10% | int4 | layerwise": 0.035,
}
"""Plan -> share of the full cache's bytes that a process may grow by, give or take SLACK."""
PLANS = ("full", *AIMS)
ANSWERING = "snapkv:64(window=8, decode=100)"


def wide(vocabulary: int) -> LlamaForCausalLM:
    """Half a MiB of keys and values for every token."""
    return _llama(vocabulary, hidden_size=128, layers=16, heads=128, kv_heads=64, head_dim=128).bfloat16()


def small(vocabulary: int) -> LlamaForCausalLM:
    """Quick to answer at length."""
    return _llama(vocabulary, hidden_size=64, layers=1, heads=4, kv_heads=2, head_dim=16)


def _llama(vocabulary: int, *, hidden_size: int, layers: int, heads: int, kv_heads: int, head_dim: int) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def read(plan: str, characters: int) -> dict[str, Any]:
    """One read, and what it took."""
    tokenizer = farspan.load().tokenizer
    model = farspan.load(wide(len(tokenizer)), tokenizer=tokenizer)
    text = inspect.getsource(argparse)[:characters]
    model.read(text, plan)
    reset_peak()
    before, own, alone = peak(), pss(), pss("Pss_Anon")
    context = model.read(text, plan)
    highest = peak()
    return {
        "tokens": context.seen,
        "full_bytes": context.full_bytes,
        "grown": pss() - own,
        "alone": pss("Pss_Anon") - alone,
        "held_bytes": context.held_bytes,
        "peak": highest - before,
        "stated_peak_bytes": context.cost.stated_peak_bytes,
    }


def answer(tokens: int) -> dict[str, Any]:
    """A long answer under a budget, from its first tenth to its end."""
    tokenizer = farspan.load().tokenizer
    model = farspan.load(small(len(tokenizer)), tokenizer=tokenizer)
    context = model.read(inspect.getsource(argparse)[:2000], ANSWERING, length=tokens + 4096)
    began, highest = 0, 0
    for at, _ in enumerate(context.stream("Why?", generation_config=endless(tokens)), 1):
        if at == tokens // 10:
            reset_peak()
            began, highest = pss(), peak()
    return {"tokens": tokens, "grown": pss() - began, "peak": peak() - highest}


def apart(*arguments: str) -> dict[str, Any]:
    """What this script prints in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory", *arguments]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def judged(plan: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with its share of the full cache, and whether that is what was aimed at."""
    share, aim = row["grown"] / row["full_bytes"], AIMS.get(plan)
    met = None if aim is None else row["grown"] <= aim * row["full_bytes"] + SLACK
    return {"name": plan, **row, "share": share, "aim": aim, "met": met}


def table(characters: int, answering: int) -> list[dict[str, Any]]:
    """Every plan, then the long answer."""
    rows = []
    for plan in PLANS:
        row = judged(plan, apart("--read", plan, "--characters", str(characters)))
        if row["full_bytes"] < LEAST:
            sys.exit(f"{row['tokens']} tokens make a full cache of {row['full_bytes']:,} bytes; give more characters")
        rows.append(row)
        figures = (f"{row[key] / MiB:10.1f}" for key in ("full_bytes", "held_bytes", "grown", "alone", "peak"))
        said = "" if row["met"] is None else f"  at most {row['aim']:.1%}: {'met' if row['met'] else 'missed'}"
        print(f"{plan:32}{row['tokens']:>8}{''.join(figures)}{row['share']:9.2%}{said}", flush=True)
    last = apart("--answer", str(answering))
    met = last["grown"] <= SLACK
    print(f"{'answer: ' + ANSWERING:40}{last['tokens']:>6} tokens, grown by {last['grown'] / MiB:.1f} MiB")
    return [*rows, {"name": f"answer: {ANSWERING}", **last, "aim": 0.0, "met": met}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--characters", type=int, default=16_600, help="of the text that is read")
    parser.add_argument("--answering", type=int, default=20_000, help="tokens of the long answer")
    parser.add_argument("--read", help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.read or given.answer:
        print(json.dumps(read(given.read, given.characters) if given.read else answer(given.answer)))
        return
    print(f"{'MiB':32}{'tokens':>8}{'full':>10}{'reported':>10}{'grown':>10}{'alone':>10}{'peak':>10}{'of full':>9}")
    rows = table(given.characters, given.answering)
    print(json.dumps({"benchmark": "memory", "slack": SLACK, "machine": machine(), "rows": rows}))


if __name__ == "__main__":
    main()
