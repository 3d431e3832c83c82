"""What a framework adds to a decode step: ours and transformers' `generate`, each against the model's own forward.

A random Llama of 28M parameters, so that what happens around its matrix products shows. `forward` is the least that a
program can do with transformers: the model called on one token with its DynamicCache, the best token fed next. `token`
is a step of an answer, ours beside `generate`'s, and its floor is that forward; `beyond the forward` is what each adds
to it, where a millionth of a second stands for anything below: our attention does less than the forward's own, and a
step of ours can be faster than it. A ratio is `generate`'s time over ours; the aim is to add at most half of what it
adds.

Answers to the same question after the same tokens, in turn, medians; a round that does not count comes first.

    python -m benchmarks.overhead --tokens 2048
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

from torch import Tensor

import farspan
from benchmarks.models import loaded, small
from benchmarks.timing import Row, finish
from farspan.measure.bench import QUESTION, code
from farspan.runtime.hf_plain import Plain, endless
from farspan.text import Asked


def forwards(plain: Plain, ids: Tensor, question: Tensor, tokens: int) -> float:
    """Seconds of each token after the first, without `generate`."""
    cache, _ = plain.read(ids)
    with plain.alone() as model:
        feed, times = question[None], list[float]()
        for _ in range(tokens):
            logits = model(input_ids=feed, past_key_values=cache, logits_to_keep=1).logits
            feed = logits[:, -1].argmax(-1, keepdim=True)
            times.append(time.perf_counter())
    return (times[-1] - times[0]) / (tokens - 1)


def generated(plain: Plain, ids: Tensor, question: Tensor, tokens: int) -> float:
    """The same under `generate`."""
    took = plain.ask(plain.read(ids)[0], ids, question, tokens)
    return (took.total - took.first) / (tokens - 1)


def ours(context: farspan.Context, tokens: int) -> float:
    """The same of an answer from a context."""
    took = context.ask(Asked(QUESTION), generation_config=endless(tokens)).timings
    return (took.total - took.first_token) / (tokens - 1)


def measured(length: int, tokens: int, repeats: int) -> list[Row]:
    model = loaded(small)
    text = code(model, length)
    context = model.read(text)
    plain, ids = Plain(model.runtime(context.positions).prepared), context.token_ids.long()
    question = model.prompts.question(QUESTION, last=None, eos=model.eos)
    runs: dict[str, Callable[[], float]] = {
        "forward": lambda: forwards(plain, ids, question, tokens),
        "generate": lambda: generated(plain, ids, question, tokens),
        "ours": lambda: ours(context, tokens),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            times[name].append(run())
    forward, generate, own = (median(times[name][1:]) for name in runs)
    added = max(own - forward, 1e-6), max(generate - forward, 1e-6)
    return [
        Row(name="token", size=length, ours=own, peer=generate, floor=forward),
        Row(name="beyond the forward", size=length, ours=added[0], peer=added[1], floor=0.0),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048, help="read before")
    parser.add_argument("--answer", type=int, default=64, help="tokens of each answer")
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    table = measured(given.tokens, given.answer, given.repeats)
    finish("overhead", table, {"answer": given.answer, "repeats": given.repeats})


if __name__ == "__main__":
    main()
