"""The replay oracle over what is fetched: one dense forward that sees just that gives the same logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from farspan.cache.sequence import Event, Fetched
from tests.oracle.pairwise import pairwise
from tests.oracle.recording import TOLERANCE, agreement, recording
from tests.oracle.situations import BATCHES, LONG, ORDERS, QUESTIONS, SITUATIONS, ask, pair, plan_of, read

KINDS = ("llama", "qwen3", "gemma3", "phi3", "gpt2", "opt")  # all with a layer of full attention
PLANS = (
    "topk:20(recent=8)",
    "topk:10%(recent=0, sinks=0, together=3) | int8",
    "topk:20(recent=8, together=16, read=true)",
    "topk:20(recent=4, together=0, read=true) | snapkv:60(window=8)",
    "topk:16(recent=4, together=5, read=true) | adakv:60 | snapkv(window=8) | int4",
    "topk:20(recent=8) | int4 | offload",
    "quest:32(page=8, recent=8)",
    "tokenselect:24(sinks=2, recent=8, similarity=0.5)",
    "tokenselect:24(sinks=2, recent=8) | adakv:60 | snapkv(window=8) | int4",
    "recycled:24(recent=8, stride=4)",
    "squeezed:24(recent=8, share=0.2, iterations=3)",
    "squeezed:24(recent=8, share=0.2, coarse=0.05) | adakv:60 | snapkv(window=8) | int8",
    "magicpig:24(recent=8, bits=3, tables=8)",
    "magicpig:16(recent=8, bits=2, tables=6, together=4, read=true) | int8",
    "emllm:40(sinks=2, recent=8, longest=16, shortest=3, together=16, window=20)",
    "emllm:40(sinks=2, recent=8, longest=16, shortest=3, together=0) | adakv:60 | snapkv(window=8) | int8",
    "actqkv:32(sinks=2, recent=8, block=8, together=16)",
    "landmark:24(recent=8, outliers=2)",
    "infllm:32(sinks=2, recent=8, block=8, together=16, representatives=2)",
    "infllm:16(sinks=2, recent=8, block=8, together=0) | snapkv:60(window=8) | int8",
    "recycled:10%(recent=8, similarity=0.9) | int8",
    "quest:16(page=4, recent=8, together=0, read=true) | adakv:60 | snapkv(window=8)",
)
MATRIX = {"kind": KINDS, "plan": PLANS, "order": ORDERS, "batch": BATCHES, "situation": tuple(SITUATIONS)}


def name(row: dict) -> str:
    return "-".join(str(value) for value in row.values())


def applies(row: dict) -> bool:
    """Surprise is known in stream order alone."""
    return "emllm" not in row["plan"] or row["order"].startswith("stream")


@pytest.mark.parametrize("row", pairwise(MATRIX, applies), ids=name)
def test_logits_are_those_of_the_replayed_selections(row: dict, tmp_path: Path) -> None:
    model, twin = pair(row["kind"])
    with recording() as record:
        contexts = read(model, plan_of(row["plan"], row["order"]), row["batch"], row["situation"])
        situation = SITUATIONS[row["situation"]]
        chains = [chain for context in contexts for chain in situation(context, row["batch"], tmp_path)]
    fetched = 0
    for chain in chains:
        events = chain[-1]._cache.events
        assert events is not None
        fetched += sum(isinstance(event, Fetched) for event in events.log)
        assert agreement(twin, record, *chain) <= TOLERANCE
    assert fetched, "something was chosen"


def one_entry_fewer(event: Fetched) -> Fetched:
    head = event.positions[0]
    return event._replace(positions=(head[:-1], *event.positions[1:]))


def one_token_later(event: Fetched) -> Fetched:
    return event._replace(time=event.time + 1)


def weighted(event: Fetched) -> Fetched:
    return event._replace(log_weights=tuple(torch.full((len(p),), 0.5) for p in event.positions))


@pytest.mark.parametrize("falsify", [one_entry_fewer, one_token_later, weighted, lambda event: None])
def test_every_falsified_selection_is_noticed(falsify: Callable[[Fetched], Event | None]) -> None:
    model, twin = pair("llama")
    with recording() as record:
        context = model.read_batch([LONG], "topk:20(recent=8, sinks=0)", trace=True)[0]
        chain = [context, ask(context, QUESTIONS[0], "single", tokens=2)[0].context]
    events = chain[-1]._cache.events
    assert events is not None
    true = list(events.log)
    assert agreement(twin, record, *chain) <= TOLERANCE
    for i, event in enumerate(true[-6:], len(true) - 6):
        assert isinstance(event, Fetched)
        false = falsify(event)
        events.log[:] = [*true[:i], *([] if false is None else [false]), *true[i + 1 :]]
        assert agreement(twin, record, *chain) > 10 * TOLERANCE, f"not noticed: event {i} of {len(true)}"
