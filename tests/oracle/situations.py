"""What is done with a context, and which conversations come of it: the matrix that the oracle is held against."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import LogitsProcessorList, PreTrainedModel, SuppressTokensLogitsProcessor

import farspan
from farspan.context import Answer, Context
from farspan.model import Model
from tests.models import tiny, tiny_tokenizer

Conversation = tuple[Context, ...]

KINDS = ("llama", "qwen3", "mistral", "gemma3", "phi3", "gpt2", "opt")
PLANS = (
    "full",
    "snapkv:40(window=8)",
    "window:24",
    "random:40",
    "int8",
    "snapkv:25%(window=8) | int8",
    "window:40 | int8(group=16)",
    "truncate:70",
    "ashape(sinks=3, window=20)",
    "trianglemix(start=1, sinks=2, window=17, last=9) | snapkv:40(window=8) | int8",
)
ORDERS = ("stream(chunk=64)", "layerwise(chunk=64)")
BATCHES = ("single", "packed")

LONG = (
    "The gateway listens on port 8443, and the archive keeps every letter for seven years. "
    "def read(path: str) -> str:\n    return open(path).read()\n"
    "Ein naïver Käfer aß süße Äpfel – 12 Stück, über Nacht. "
    "Forty-two letters were sent in May; the gateway refused three of them, and nobody knows why. "
)
MIDDLE = "Which port does the gateway use? The answer is in the second document, on page 12, near its end. " * 2
SHORT = "Question: how many letters were sent in May? Answer: forty-two. The archive keeps them all, as it must."
OTHER = "The second archive was moved to port 9001 in June, and its letters are kept for two years only. " * 2

QUESTIONS = ("Which port does the gateway use?", "How many letters were sent?", "And why?")


@functools.cache
def pair(kind: str) -> tuple[Model, PreTrainedModel]:
    """A tiny model that farspan has loaded, and its twin with the same weights, which it never touches."""
    tokenizer = tiny_tokenizer()
    size = len(tokenizer)
    return farspan.load(tiny(kind, vocab_size=size), tokenizer=tokenizer), tiny(kind, vocab_size=size)


def plan_of(plan: str, order: str) -> str:
    """One plan's text; the full plan is written as its order alone."""
    return order if plan == "full" else f"{plan} | {order}"


def ask(context: Context, question: str, batch: str, tokens: int = 6) -> list[Answer]:
    """One question alone, or packed with two others; answers are of `tokens` tokens, whatever the model says."""
    going_on: dict[str, Any] = {
        "max_new_tokens": tokens,
        "logits_processor": LogitsProcessorList([SuppressTokensLogitsProcessor([2])]),
    }
    if batch == "single":
        return [context.ask(question, **going_on)]
    return context.ask([question, "Why?", f"{question} Say it again, with the number of the page."], **going_on)


def first(context: Context, batch: str, folder: Path) -> list[Conversation]:
    """The first question."""
    return [(context, answer.context) for answer in ask(context, QUESTIONS[0], batch)]


def second(context: Context, batch: str, folder: Path) -> list[Conversation]:
    """A second question on the same context, which the first has not changed."""
    answers = [*ask(context, QUESTIONS[0], batch), *ask(context, QUESTIONS[1], batch)]
    return [(context, answer.context) for answer in answers]


def third_turn(context: Context, batch: str, folder: Path) -> list[Conversation]:
    """Three turns, long enough that the tail of a conversation seals, and sliding layers forget."""
    conversations: list[Conversation] = [(context,)]
    for question in QUESTIONS:
        conversations = [
            (*turns, answer.context)
            for turns in conversations[:2]
            for answer in ask(turns[-1], question, batch, tokens=56)
        ]
    return conversations


def forked(context: Context, batch: str, folder: Path) -> list[Conversation]:
    """Two forks go their own ways, and the context itself goes a third."""
    one, two = context.fork(), context.fork()
    more = two.append(OTHER)
    return [
        *((context, one, answer.context) for answer in ask(one, QUESTIONS[0], batch)),
        *((context, two, more, answer.context) for answer in ask(more, QUESTIONS[1], batch)),
        *((context, answer.context) for answer in ask(context, QUESTIONS[1], batch)),
    ]


def appended(context: Context, batch: str, folder: Path) -> list[Conversation]:
    """Another document: the plan decides anew over old and new."""
    longer = context.append(OTHER)
    return [(context, longer, answer.context) for answer in ask(longer, QUESTIONS[0], batch)]


def appended_to_conversation(context: Context, batch: str, folder: Path) -> list[Conversation]:
    """Another document after a question and its answer, with a probe lent."""
    turns = (context, ask(context, QUESTIONS[0], batch)[0].context)
    longer = turns[-1].append([OTHER, SHORT], probe=QUESTIONS[1])
    return [(*turns, longer, answer.context) for answer in ask(longer, QUESTIONS[1], batch)]


def saved(context: Context, batch: str, folder: Path) -> list[Conversation]:
    """Saved, opened and asked; and that conversation saved, opened and asked again."""
    opened = reopened(context, folder / "read.ctx")
    conversations = []
    for answer in ask(opened, QUESTIONS[0], batch):
        again = reopened(answer.context, folder / "answered.ctx")
        turns = (context, opened, answer.context, again)
        conversations += [(*turns, later.context) for later in ask(again, QUESTIONS[1], "single")]
    return conversations


def reopened(context: Context, path: Path) -> Context:
    """Saved and opened, with its trace."""
    context.save(path)
    opened = context.model.open(path)
    assert context._cache.events is not None
    opened._cache.events = context._cache.events.fork()  # a file holds no trace; the oracle needs the whole one
    return opened


SITUATIONS: dict[str, Callable[[Context, str, Path], list[Conversation]]] = {
    "first question": first,
    "second question": second,
    "third turn": third_turn,
    "fork": forked,
    "append": appended,
    "append to a conversation": appended_to_conversation,
    "save and open": saved,
    "probe": first,
}


def read(model: Model, plan: str, batch: str, situation: str) -> list[Context]:
    """One document, or three of unequal length packed; with a trace, and with probes where they are the situation."""
    documents: Sequence[str] = [LONG] if batch == "single" else [LONG, SHORT, MIDDLE]
    probes = list(QUESTIONS[: len(documents)]) if situation == "probe" else None
    return model.read_batch(documents, plan, probes=probes, trace=True)
