"""What every replay test does: read in some situation, ask, and compare with the oracle; and see that it can fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from farspan.context import Context
from tests.oracle.recording import TOLERANCE, agreement, recording
from tests.oracle.situations import LONG, QUESTIONS, SITUATIONS, ask, pair, plan_of, read


def replayed(row: dict, tmp_path: Path) -> list[list[Context]]:
    """The conversations of one combination of kind, plan, order, batch and situation, whose logits the oracle gave."""
    model, twin = pair(row["kind"])
    with recording() as record:
        contexts = read(model, plan_of(row["plan"], row["order"]), row["batch"], row["situation"])
        situation = SITUATIONS[row["situation"]]
        chains = [list(chain) for context in contexts for chain in situation(context, row["batch"], tmp_path)]
    for chain in chains:
        assert agreement(twin, record, *chain) <= TOLERANCE
    return chains


def assert_noticed(kind: str, plan: str, gone: Callable[[Any], bool]) -> None:
    """The oracle agrees as long as it hears of every event, and not once those that are `gone` are kept from it."""
    model, twin = pair(kind)
    with recording() as record:
        context = model.read_batch([LONG], plan, trace=True)[0]
        answered = ask(context, QUESTIONS[0], "single")[0].context
    events = answered._cache.events
    assert events is not None
    assert agreement(twin, record, context, answered) <= TOLERANCE
    events.log[:] = [event for event in events.log if not gone(event)]
    assert agreement(twin, record, context, answered) > 1000 * TOLERANCE
