"""An oracle that cannot fail proves nothing: here every single event is falsified, and every time it is noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from farspan.cache.sequence import Event, Kept, Patterned, Replaced
from tests.oracle.recording import Recording, agreement, recording
from tests.oracle.replay import TOLERANCE
from tests.oracle.situations import LONG, ORDERS, ask, pair

CLEARLY = 10 * TOLERANCE
PLAN = "snapkv:40(window=8) | int8"


def forgets_one_entry(event: Event) -> Event:
    """Of one head, the entry in the middle of what was kept."""
    assert isinstance(event, Kept)
    head = event.positions[0]
    return event._replace(positions=(head[torch.arange(len(head)) != len(head) // 2], *event.positions[1:]))


def too_early(event: Event) -> Event:
    """One token earlier (the newest token is always kept, so it only gains a query that misses the old ones)."""
    if isinstance(event, Replaced):
        return event._replace(time=event.time - 4)
    earlier = event.time - 1
    return event._replace(time=earlier, positions=tuple(p[p < earlier] for p in event.positions))


def another_head(event: Event) -> Event:
    assert isinstance(event, Kept)
    return event._replace(positions=event.positions[::-1])


def another_layer(event: Event) -> Event:
    return event._replace(layer=1 - event.layer if event.layer < 2 else 0)


def nothing(event: Event) -> None:
    return None


def conversation(kind: str, order: str, plan: str = PLAN) -> tuple[Recording, list, list[Event]]:
    model, _ = pair(kind)
    with recording() as record:
        context = model.read_batch([LONG], f"{plan} | {order}", trace=True)[0]
        chain = [context, ask(context, "Which port does the gateway use?", "single")[0].context]
    events = chain[-1]._cache.events
    assert events is not None
    return record, chain, events.log


@pytest.mark.parametrize("falsify", [forgets_one_entry, too_early, another_head, another_layer, nothing])
@pytest.mark.parametrize("kind", ["llama", "gemma3", "gpt2"])
def test_every_falsified_event_is_noticed(kind: str, falsify: Callable[[Event], Event | None]) -> None:
    # stream order, whose tokens were all recorded; the same falsehood in layerwise order is tested below
    _, twin = pair(kind)
    record, chain, log = conversation(kind, ORDERS[0])
    true = list(log)
    assert agreement(twin, record, *chain) <= TOLERANCE
    kept_only = falsify in (forgets_one_entry, another_head)
    layers = {event.layer for event in true}
    if falsify is another_layer and len(layers) < 2:
        pytest.skip("one layer with full attention has no other to be confused with")
    for i, event in enumerate(true):
        if kept_only and not isinstance(event, Kept):
            continue
        false = falsify(event)
        log[:] = [*true[:i], *([] if false is None else [false]), *true[i + 1 :]]
        assert agreement(twin, record, *chain) > CLEARLY, f"not noticed: event {i} of {len(true)}"


@pytest.mark.parametrize("falsify", [forgets_one_entry, nothing])
def test_in_layerwise_order_a_falsified_event_is_noticed_in_the_answer_alone(
    falsify: Callable[[Event], Event | None],
) -> None:
    _, twin = pair("llama")
    record, chain, log = conversation("llama", ORDERS[1])
    true = list(log)
    assert agreement(twin, record, *chain) <= TOLERANCE
    for i, event in enumerate(true):
        if isinstance(event, Kept):
            false = falsify(event)
            log[:] = [*true[:i], *([] if false is None else [false]), *true[i + 1 :]]
            assert agreement(twin, record, *chain) > CLEARLY


@pytest.mark.parametrize("plan", ["lookm:40 | snapkv(window=8)", "ems:40 | globallocal(window=8)"])
@pytest.mark.parametrize("falsify", [too_early, nothing])
def test_entries_that_were_merged_are_noticed(falsify: Callable[[Event], Event | None], plan: str) -> None:
    """Merged keys and values taken as computed, or from four tokens earlier on."""
    _, twin = pair("llama")
    record, chain, log = conversation("llama", ORDERS[0], plan)
    true = list(log)
    assert agreement(twin, record, *chain) <= TOLERANCE
    for i, event in enumerate(true):
        if isinstance(event, Replaced):
            false = falsify(event)
            log[:] = [*true[:i], *([] if false is None else [false]), *true[i + 1 :]]
            assert agreement(twin, record, *chain) > CLEARLY, f"not noticed: event {i} of {len(true)}"


def shows_one_more(event: Event) -> Event:
    assert isinstance(event, Patterned)
    heads = tuple(replace(sight, window=sight.window + 1) for sight in event.pattern.heads)
    return event._replace(pattern=replace(event.pattern, heads=heads))


def one_query_less(event: Event) -> Event:
    assert isinstance(event, Patterned)
    return event._replace(stop=event.stop - 1)


@pytest.mark.parametrize("plan", ["ashape(sinks=2, window=20)", "trianglemix(start=1, sinks=2, window=20, last=4)"])
@pytest.mark.parametrize("falsify", [shows_one_more, one_query_less, nothing])
def test_what_a_chunk_did_not_see_is_noticed(falsify: Callable[[Event], Event | None], plan: str) -> None:
    _, twin = pair("llama")
    record, chain, log = conversation("llama", ORDERS[0], plan)
    true = list(log)
    assert agreement(twin, record, *chain) <= TOLERANCE
    for i, event in enumerate(true):
        if falsify is one_query_less and event.stop == chain[0].seen and "triangle" in plan:
            continue  # the last query sees everything anyway
        false = falsify(event)
        log[:] = [*true[:i], *([] if false is None else [false]), *true[i + 1 :]]
        assert agreement(twin, record, *chain) > CLEARLY, f"not noticed: event {i} of {len(true)}"


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3", "phi3", "gpt2", "opt"])
def test_int8_codes_move_the_logits_of_the_fixtures(kind: str) -> None:
    """Keys and values taken as computed instead of as held: a difference that a weak fixture would not show."""
    model, twin = pair(kind)
    with recording() as record:
        context = model.read_batch([LONG], "int8 | stream(chunk=64)", trace=True)[0]
        answered = ask(context, "Which port does the gateway use?", "single")[0].context
    events = answered._cache.events
    assert events is not None and len(events.log) >= 3
    assert agreement(twin, record, context, answered) <= TOLERANCE
    events.log.clear()
    assert agreement(twin, record, context, answered) > CLEARLY
