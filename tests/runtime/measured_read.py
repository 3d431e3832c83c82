"""One read in a process of its own, and what it took: run by test_memory with PLAN TOKENS; ends with a line of JSON.

The model is small in everything but its layers' entries: 4 layers of 4 heads × 32, hidden size 256, float32.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import transformers

import farspan
from benchmarks.process import peak, pss, reset_peak
from farspan import reference

SENTENCES = (
    "The gateway of the northern archive listens on port {0}, and its clerk answers every letter within {1} days. ",
    "On page {0} of the ledger somebody crossed out the sum of {1} crowns, which nobody has explained since. ",
    "def entry_{0}(page: int) -> int:\n    return page * {1} + 7\n",
)


def text_of(tokens: int, tokenizer: Any) -> str:
    """A text of about as many tokens, counted line by line, so that making it leaves no large hole in the heap."""
    lines: list[str] = []
    known = 0
    while known < tokens:
        lines.append(SENTENCES[len(lines) % 3].format(1000 + len(lines), 3 + len(lines) % 97))
        known += len(tokenizer(lines[-1], add_special_tokens=False)["input_ids"])
    return "".join(lines)


def main(plan: str, tokens: int) -> dict[str, float]:
    torch.set_num_threads(1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(reference.path()))
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=256, intermediate_size=512, num_hidden_layers=4,
        num_attention_heads=8, num_key_value_heads=4, head_dim=32, max_position_embeddings=2048,
    )  # fmt: skip
    model = farspan.load(transformers.LlamaForCausalLM(config).eval(), tokenizer=tokenizer)
    text = text_of(tokens, tokenizer)
    model.read(text[:20_000], plan)  # what is loaded or built once is not this read's
    reset_peak()
    before, pss_before = peak(), pss()
    context = model.read(text, plan)
    return {
        "seen": context.seen,
        "held": context.held,
        "held_bytes": context.held_bytes,
        "before": before,
        "peak": peak(),
        "pss_before": pss_before,
        "pss": pss(),
        "peak_bytes": context.cost.peak_bytes,
        "seconds": context.cost.seconds,
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
