"""What a token costs with a model's weights in another form, beside the same model with its weights as they are.

`int8` and `packed` are what `farspan.load(..., weights=...)` makes of them. `compiled` has torch.compile on every norm
and feed-forward block, the parts of a body that no attention of ours interrupts; it needs a C++ compiler at run time.
`read` reads the text, `first token` reads a question and chooses one token, `token` is every further one: ours with
that form, peer without it. The floor is the bytes of weights and cache over the bandwidth, and for a read its FLOPs
over the rate of a large matrix product.

Before that, what each form says of the embedded model's quality: nats per token of source code after 2,048 tokens.

    python -m benchmarks.weights
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import fmean, median
from typing import Any

from transformers import LlamaForCausalLM

import farspan
from benchmarks.models import big, small
from benchmarks.timing import Row, bandwidth, finish, rate
from farspan.measure.bench import QUESTION, code
from farspan.runtime.hf_plain import endless
from farspan.text import Asked

FORMS = ("as they are", "int8", "packed", "compiled")
SIZES: dict[str, Callable[[int], LlamaForCausalLM]] = {"0.4B": big, "28M": small}
JUDGED = 1024
"""Tokens of the text whose likelihood is asked for."""


def formed(make: Callable[[int], LlamaForCausalLM], form: str) -> farspan.Model:
    tokenizer = farspan.load().tokenizer
    model = make(len(tokenizer))
    if form == "compiled":
        for name, part in model.model.layers.named_modules():
            if name.endswith(("mlp", "layernorm")):
                part.compile()
    return farspan.load(model, tokenizer=tokenizer, weights=form if form in FORMS[1:3] else None)


def times(model: farspan.Model, text: str, tokens: int) -> tuple[float, float, float]:
    """Seconds of a read, of an answer's first token and of each one after it."""
    context = model.read(text)
    took = context.ask(Asked(QUESTION), generation_config=endless(tokens)).timings
    return context.cost.seconds, took.first_token, (took.total - took.first_token) / (tokens - 1)


def measured(name: str, length: int, tokens: int, repeats: int, flops: float, speed: float) -> list[Row]:
    """All forms of one model in turn; the first two rounds, in which shapes are compiled, do not count."""
    models = {form: formed(SIZES[name], form) for form in FORMS}
    plain = models[FORMS[0]]
    text = code(plain, length)
    every: dict[str, list[tuple[float, float, float]]] = {form: [] for form in FORMS}
    for _ in range(repeats + 2):
        for form, model in models.items():
            every[form].append(times(model, text, tokens))
    found = {form: [median(column) for column in zip(*each[2:], strict=True)] for form, each in every.items()}
    return rows(name, plain, length, found, flops, speed)


def rows(
    name: str, plain: farspan.Model, length: int, found: dict[str, list[float]], flops: float, speed: float
) -> list[Row]:
    weights = sum(parameter.numel() for parameter in plain.hf.parameters())
    inside = sum(parameter.numel() for layer in plain.hf.model.layers for parameter in layer.parameters())
    cache = plain.read(code(plain, length)).held_bytes
    made = []
    for form in FORMS[1:]:
        bytes_read = 2 * weights - (inside if form == "int8" else 0) + cache
        floors = 2 * weights * length / flops, bytes_read / speed, bytes_read / speed
        for what, ours, peer, floor in zip(
            ("read", "first token", "token"), found[form], found[FORMS[0]], floors, strict=True
        ):
            made.append(Row(name=f"{what} {name} {form}", size=length, ours=ours, peer=peer, floor=floor))
    return made


def nats() -> dict[str, float]:
    """Form -> nats per token of what follows 2,048 tokens of source code, by the embedded model."""
    said: dict[str, float] = {}
    text = code(farspan.load(), 2048 + 2 * JUDGED)
    for form in FORMS[:3]:
        model = farspan.load(weights=None if form == FORMS[0] else form)
        cut = len(text) * 2 // 4
        said[form] = -fmean(model.read(text[:cut]).score(text[cut:]).logprobs[:JUDGED])
        print(f"{form:12} {said[form]:.4f} nats per token", flush=True)
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048, help="read before")
    parser.add_argument("--answer", type=int, default=24, help="tokens of each answer")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    quality = nats()
    flops, speed = rate(), bandwidth()
    table = [row for name in SIZES for row in measured(name, given.tokens, given.answer, given.repeats, flops, speed)]
    facts: dict[str, Any] = {"answer": given.answer, "repeats": given.repeats, "nats": quality}
    finish("weights", table, facts)


if __name__ == "__main__":
    main()
