"""The replay oracle: one dense forward that repeats every decision a real run made, with none of its code.

A real run reads in chunks, drops and packs entries between them, shares extents between forks and merges parts of a
softmax. What it must amount to is simple. Every token of the sequence goes once through the model; each layer keeps
all keys and values; and per (layer, head, query, key) the log of events says what the query could see:

* a query sees keys at its own position and before, and within the layer's own sliding window;
* `Kept(layer, time, positions)`: queries at `time` and later see, of the keys before `time`, just `positions[head]`;
* `Fetched(layer, time, tokens, since, positions, log_weights)`: queries from `time` on, `tokens` of them, see of the
  keys before `since` just `positions[head]`, with `log_weights[head]` added to their scores;
* `Replaced(layer, time, extent)`: queries at `time` and later see that extent's (dequantised) keys and values in the
  place of those that the layer computed;
* `Followed(layer, time, leader, positions)`: queries at `time` and later score the keys at `positions[head]` as the
  layer `leader` does, by its queries and keys, with this layer's values;
* `Pruned(layer, time, heads)`: these heads put out nothing for queries at `time` and later;
* `Patterned(layer, time, stop, pattern)`: queries at time..stop-1 see, of all that, what the pattern says;
* `Composed(time, parts, ...)`: every part is replayed by itself; queries at `time` and later see what the parts hold
  then, turned to where it stands (`apart.py`), as keys of this sequence;
* `Merged(time, lag)`: later tokens stand `lag` positions before their number; what is held of those before comes from
  `Kept` and `Replaced` alone.

So queries are cut into segments between event times, and each segment is one matrix product and one masked softmax.
The model is a second instance with the same weights that farspan has never touched; only its attention function is
ours, registered through transformers' own interface. A probe leaves no token behind and needs no replay: what it
decided stands in the log.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from farspan.cache.pieces import Composed
from farspan.cache.sequence import Event, Fetched, Followed, Kept, Merged, Patterned, Pruned, Replaced
from tests.oracle.apart import Final, stood_together, weighed

NAME = "replay-oracle"
TOLERANCE = 1e-5  # of the largest logit, and at least of 1


@dataclass
class _Replay:
    """The events that are being replayed, and which layers have been."""

    events: Sequence[Kept | Replaced | Followed | Pruned | Patterned | Fetched]
    composed: Composed | None = None
    before: dict[int, Final] = field(default_factory=dict)
    """By layer, what of the parts stands before `composed.time`."""
    after: dict[int, Final] = field(default_factory=dict)
    """By layer, what is held when all is over."""
    scored: dict[int, Tensor] = field(default_factory=dict)
    """By layer that others follow, [Hk, G, N, N] products of all queries and keys, scaled and capped."""


_replaying: list[_Replay] = []


def replay(twin: PreTrainedModel, ids: Tensor, events: Sequence[Event]) -> Tensor:
    """ids [N] of a whole conversation and its events -> the logits [N, V] that every token must have had.

    `twin` has the weights of the real run's model, in float32, and its own attention is never used. Of a sequence that
    was composed, logits of tokens before that are without meaning.
    """
    return _passed(twin, ids, events, 0)[0]


def _passed(twin: PreTrainedModel, ids: Tensor, events: Sequence[Event], lag: int) -> tuple[Tensor, dict[int, Final]]:
    """-> logits [N, V], and by layer what is held in the end; tokens stand `lag` positions before their number."""
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
    before = twin.config._attn_implementation
    twin.set_attn_implementation(NAME)
    now = _Replay([event for event in events if not isinstance(event, Composed | Merged)])
    lag = next((event.lag for event in events if isinstance(event, Merged)), lag)
    if any(isinstance(event, Composed) for event in events):
        now.composed = events[0]
        lag = events[0].lag
        parts = [_passed(twin, part.ids, part.log, part.lag)[1] for part in events[0].parts]
        now.before = stood_together(twin, events[0], parts)
        twin.set_attn_implementation(NAME)
    _replaying.append(now)
    try:
        with torch.inference_mode():
            positions = (torch.arange(ids.numel()) - lag).clamp(min=0)[None]
            logits = twin(input_ids=ids[None].long(), position_ids=positions, use_cache=False).logits[0]
    finally:
        _replaying.pop()
        twin.set_attn_implementation(before)
    assert set(now.after) >= {event.layer for event in now.events}, "an event names a layer that is not there"
    return logits, now.after


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query [1, Hq, N, D], key [1, Hk, N, D], value [1, Hk, N, Dv] -> [1, N, Hq, Dv]."""
    layer: int = module.layer_idx  # type: ignore[assignment]
    now = _replaying[-1]
    events = sorted((e for e in now.events if e.layer == layer), key=lambda e: e.time)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    tokens = query.shape[2]
    keys, values = key[0].double(), value[0].double()
    asked = query[0].double().unflatten(0, (keys.shape[0], -1))  # [Hk, G, N, D]: a group shares its head's keys
    composed = now.composed
    visible = _visible(events, keys.shape[0], tokens, sliding_window)
    weights = _weights(events, keys.shape[0], tokens)
    if composed is not None:
        visible[:, composed.time :, : composed.time] &= now.before[layer].held[:, None]
    if any(isinstance(event, Followed) and event.leader == layer for event in now.events):
        now.scored[layer] = _capped(torch.einsum("hgtd,hnd->hgtn", asked, keys) * scaling, kwargs)
    led, leader = torch.zeros(keys.shape[:2], dtype=torch.bool), layer
    changes = {e.time for e in events if isinstance(e, Replaced | Followed)}
    changes |= {composed.time} if composed is not None else set()
    parts = []
    for start, stop in itertools.pairwise([*sorted({0, tokens, *changes}), tokens]):
        if composed is not None and composed.time == start:
            keys, values = (
                torch.cat([old, new[:, start:]], 1) for old, new in zip(now.before[layer], (keys, values), strict=False)
            )
        for event in events:
            if isinstance(event, Replaced) and event.time == start:
                keys, values = _replaced(keys, values, event)
            if isinstance(event, Followed) and event.time == start:
                leader = event.leader
                for head, positions in enumerate(event.positions):
                    led[head, positions.long()] = True
        scores = _capped(torch.einsum("hgtd,hnd->hgtn", asked[:, :, start:stop], keys) * scaling, kwargs)
        if bool(led.any()):
            scores = torch.where(led[:, None, None], now.scored[leader][:, :, start:stop], scores)
        scores = scores + weights[:, None, start:stop]
        scores = scores.masked_fill(~visible[:, None, start:stop], -math.inf)
        if composed is not None and start >= composed.time and sliding_window is None:
            scores = weighed(scores, composed.pieces)
        weights_of = scores.softmax(-1)
        if kwargs.get("s_aux") is not None:  # one more logit per query head, whose weight goes nowhere
            sinks = (
                kwargs["s_aux"].double().unflatten(0, scores.shape[:2])[..., None, None].expand(*scores.shape[:-1], 1)
            )
            weights_of = torch.cat([scores, sinks], -1).softmax(-1)[..., :-1]
        parts.append(torch.einsum("hgtn,hnd->hgtd", weights_of, values))
    now.after[layer] = Final(keys, values, _held(events, now, layer, keys.shape[:2]))
    whole = torch.cat(parts, 2)
    for event in events:
        if isinstance(event, Pruned):
            whole[list(event.heads), :, event.time :] = 0
    out = whole.flatten(0, 1).transpose(0, 1)
    return out[None].to(query.dtype), None


def _capped(scores: Tensor, more: dict[str, Any]) -> Tensor:
    """Scores as a model bounds them that caps them (Gemma 2)."""
    cap = more.get("softcap")
    return cap * torch.tanh(scores / cap) if cap else scores


def _visible(events: Sequence[Event], heads: int, tokens: int, window: int | None) -> Tensor:
    """-> [heads, tokens, tokens] bool: which query (row) of which head sees which key (column)."""
    query, key = torch.arange(tokens)[:, None], torch.arange(tokens)[None]
    seen = (key <= query) if window is None else (key <= query) & (key > query - window)
    seen = seen.repeat(heads, 1, 1)
    for event in events:
        if isinstance(event, Kept):
            for head, positions in enumerate(event.positions):
                kept = torch.zeros(event.time, dtype=torch.bool)
                kept[positions.long()] = True
                seen[head, event.time :, : event.time] &= kept
        elif isinstance(event, Patterned):
            for head in range(heads):
                seen[head, event.time : event.stop] &= _shown(event, head, tokens)
        elif isinstance(event, Fetched):
            for head, positions in enumerate(event.positions):
                read = torch.zeros(event.since, dtype=torch.bool)
                read[positions.long()] = True
                seen[head, event.time : event.time + event.tokens, : event.since] &= read
    return seen


def _shown(event: Patterned, head: int, tokens: int) -> Tensor:
    """-> [stop - time, tokens] bool: what a pattern shows, key by key as its fields say."""
    sight = event.pattern.heads[head % len(event.pattern.heads)]
    columns = set() if sight.columns is None else set(sight.columns.tolist())
    near = {*range(sight.window), *(distance for a, b in sight.bands for distance in range(a, min(b, tokens)))}
    since = event.pattern.dense_from
    rows = []
    for query in range(event.time, event.stop):
        dense = since is not None and query >= since
        rows.append([dense or key < sight.sinks or key in columns or query - key in near for key in range(tokens)])
    return torch.tensor(rows)


def _weights(events: Sequence[Event], heads: int, tokens: int) -> Tensor:
    """-> [heads, tokens, tokens] float64: what is added to the score of a query (row) and a key (column)."""
    added = torch.zeros(heads, tokens, tokens, dtype=torch.float64)
    for event in events:
        if isinstance(event, Fetched) and event.log_weights is not None:
            for head, (positions, its) in enumerate(zip(event.positions, event.log_weights, strict=True)):
                for time in range(event.time, event.time + event.tokens):
                    added[head, time, positions.long()] = its.double()
    return added


def _held(events: Sequence[Event], now: _Replay, layer: int, shape: tuple[int, int]) -> Tensor:
    """-> [heads, tokens] bool: what each head has in the end; a layer's own window is left to who asks."""
    held = torch.ones(shape, dtype=torch.bool)
    if now.composed is not None:
        held[:, : now.composed.time] = now.before[layer].held
    for event in events:
        if isinstance(event, Kept):
            for head, positions in enumerate(event.positions):
                kept = torch.zeros(event.time, dtype=torch.bool)
                kept[positions.long()] = True
                held[head, : event.time] &= kept
    return held


def _replaced(keys: Tensor, values: Tensor, event: Replaced) -> tuple[Tensor, Tensor]:
    """Copies in which the extent's entries stand at their positions, head by head."""
    keys, values = keys.clone(), values.clone()
    new_keys, new_values, positions = event.extent.entries()
    for head in range(keys.shape[0]):
        its = slice(event.extent.offsets[head], event.extent.offsets[head + 1])
        at = positions[its].long()
        keys[head, at], values[head, at] = new_keys[its].double(), new_values[its].double()
    return keys, values


def difference(real: Tensor, replayed: Tensor) -> float:
    """The largest gap between logits, relative to max(1, max|logit|): to be compared with TOLERANCE."""
    scale = max(1.0, replayed.abs().max().item())
    return (real.float() - replayed.float()).abs().max().item() / scale
