"""SelfExtend: contexts whose positions depend on pairs, against one forward that places every pair by itself."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from farspan.cache.sequence import Event, Kept, Replaced
from farspan.context import Context
from farspan.errors import CapacityError, PlanDoesNotApply, PlanError
from farspan.methods.positions.base import Grouping
from farspan.methods.positions.selfextend import Selfextend
from farspan.plan import Plan
from tests.methods.positions.twins import TRAINED, loaded, short
from tests.oracle.pairwise import pairwise
from tests.oracle.recording import TOLERANCE, Recording, recording
from tests.oracle.replay import difference
from tests.oracle.situations import BATCHES, LONG, MIDDLE, ORDERS, QUESTIONS, SHORT, SITUATIONS, ask, read

NAME = "pairwise-oracle"


# -- the oracle ----------------------------------------------------------------------------------------------------


def replay(twin: PreTrainedModel, ids: Tensor, events: Sequence[Event], grouping: Grouping) -> Tensor:
    """ids [N] -> logits [N, V]: queries and keys come unrotated, and every pair is turned by its own distance."""
    rotary = next(module for module in twin.modules() if type(module).__name__.endswith("RotaryEmbedding"))
    own = {name: getattr(rotary, name) for name in ("inv_freq", "full_attention_inv_freq") if hasattr(rotary, name)}
    inverse = next(iter(own.values())).double()

    def attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        window, scaling = kwargs.get("sliding_window"), kwargs.get("scaling") or query.shape[-1] ** -0.5
        q, k, v = (states[0].double() for states in (query, key, value))
        groups = q.shape[0] // k.shape[0]
        mine = [event for event in events if event.layer == module.layer_idx]
        angles = inverse if window is None else torch.zeros_like(inverse)  # layers that slide have turned theirs
        out = _attended(q.unflatten(0, (-1, groups)), k, v, angles, grouping, window, scaling, mine)
        return out.flatten(0, 1).transpose(0, 1)[None].to(query.dtype), None

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
    twin.set_attn_implementation(NAME)
    for name, frequencies in own.items():
        setattr(rotary, name, torch.zeros_like(frequencies))
    with torch.inference_mode():
        return twin(input_ids=ids[None].long(), use_cache=False).logits[0]


def _attended(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    inverse: Tensor,
    grouping: Grouping,
    window: int | None,
    scaling: float,
    events: Sequence[Event],
) -> Tensor:
    """query [H, G, N, D], keys [H, N, D] -> [H, G, N, Dv]; events replace entries from their time on."""
    tokens = query.shape[2]
    q, k = torch.arange(tokens)[:, None], torch.arange(tokens)[None]
    far = q // grouping.group + grouping.window - grouping.window // grouping.group - k // grouping.group
    distance = torch.where(q - k < grouping.window, q - k, far)
    visible = (k <= q) if window is None else (k <= q) & (k > q - window)
    edges = sorted({0, tokens, *(e.time for e in events if e.time < tokens)})
    parts = []
    for start, stop in itertools.pairwise(edges):
        for event in events:
            if event.time == start:
                assert isinstance(event, Replaced), "nothing is dropped under pairwise positions"
                keys, values = _replaced(keys, values, event, inverse)
        scores = _scores(query[:, :, start:stop], keys, distance[start:stop], inverse) * scaling
        weights = scores.masked_fill(~visible[start:stop], -math.inf).softmax(-1)
        parts.append(torch.einsum("hgtn,hnd->hgtd", weights, values))
    return torch.cat(parts, 2)


def _scores(query: Tensor, keys: Tensor, distance: Tensor, inverse: Tensor) -> Tensor:
    """Pairs of dimensions as complex numbers: Re(q · conj(k) · e^(i distance θ)), summed."""
    asked, held = (torch.complex(*states.chunk(2, -1)) for states in (query, keys))
    total = torch.zeros(*query.shape[:3], keys.shape[1], dtype=torch.float64)
    for d, theta in enumerate(inverse):
        turn = torch.polar(torch.ones_like(distance, dtype=torch.float64), distance * theta)
        total += (asked[..., None, d] * held[:, None, None, :, d].conj() * turn).real
    return total


def _replaced(keys: Tensor, values: Tensor, event: Replaced, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """What an extent holds stands turned to its position; here it is turned back."""
    keys, values = keys.clone(), values.clone()
    new_keys, new_values, positions = event.extent.entries()
    for head in range(keys.shape[0]):
        its = slice(event.extent.offsets[head], event.extent.offsets[head + 1])
        at = positions[its].long()
        numbers = torch.complex(*new_keys[its].double().chunk(2, -1))
        numbers = numbers * torch.polar(torch.tensor(1.0).double(), -at[:, None] * inverse)
        keys[head, at], values[head, at] = torch.cat([numbers.real, numbers.imag], -1), new_values[its].double()
    return keys, values


def agreement(kind: str, record: Recording, *chain: Context) -> float:
    last = chain[-1]
    assert last._cache.events is not None and not any(isinstance(e, Kept) for e in last._cache.events.log)
    grouping = last.positions.grouping or Grouping(1, TRAINED)
    truth = replay(short(kind), last._cache.ids(), last._cache.events.log, grouping)
    passed = record.of(*chain)
    assert passed
    real = torch.cat([p.logits for p in passed])
    return difference(real, torch.cat([truth[p.start : p.start + p.logits.shape[0]] for p in passed]))


PLANS = ("selfextend(window=17)", "selfextend(group=3, window=40) | int8(group=16)")
ROUNDING = 3  # times what other contexts are allowed: far keys are turned twice, each time rounded to float32
MATRIX = {
    "plan": PLANS,
    "situation": tuple(name for name in SITUATIONS if name != "probe"),
    "kind": ("llama", "gemma3"),
    "order": ORDERS,
    "batch": BATCHES,
}


def name(row: dict) -> str:
    return "-".join(str(value) for value in row.values())


@pytest.mark.parametrize("row", pairwise(MATRIX), ids=name)
def test_logits_are_those_of_every_pair_placed_by_itself(row: dict, tmp_path: Path) -> None:
    model = loaded(row["kind"])
    with recording() as record:
        contexts = read(model, f"{row['plan']} | {row['order']}", row["batch"], row["situation"])
        situation = SITUATIONS[row["situation"]]
        chains = [chain for context in contexts for chain in situation(context, row["batch"], tmp_path)]
    for chain in chains:
        assert agreement(row["kind"], record, *chain) <= ROUNDING * TOLERANCE


def test_the_oracle_feels_a_group_of_another_size() -> None:
    with recording() as record:
        context = loaded().read_batch([LONG], "selfextend(group=3, window=40)", trace=True)[0]
        answered = ask(context, QUESTIONS[0], "single")[0].context
    truth = replay(short(), answered._cache.ids(), [], Grouping(4, 40))
    passed = record.of(answered)[0]
    assert difference(passed.logits, truth[passed.start : passed.start + passed.logits.shape[0]]) > 100 * TOLERANCE


# -- what it decides -----------------------------------------------------------------------------------------------


def test_the_group_is_the_smallest_that_reaches() -> None:
    method = Selfextend(window=64)
    for factor in (1.5, 2.0, 3.7, 8.0):
        made = method.grouping(256, factor)
        assert made is not None and made.window == 64
        newest = round(256 * factor) - 1
        farthest = newest // made.group + 64 - 64 // made.group
        smaller = newest // (made.group - 1) + 64 - 64 // (made.group - 1) if made.group > 1 else newest
        assert farthest < 256 <= smaller
    assert method.grouping(256, 1.0) is None, "a text within the trained length keeps its positions"
    assert Selfextend(group=5).grouping(256, 3.0) == Grouping(5, 64), "a quarter of the trained length is near"
    assert Selfextend(group=5).needed(9000, 256) == (64 + 5 * 192) / 256


def test_within_the_window_it_is_the_model_as_it_was_trained() -> None:
    model = loaded()
    plain, extended = (
        model.read(SHORT, plan).ask(QUESTIONS[0], max_new_tokens=8)
        for plan in ("full", "selfextend(group=4, window=127)")
    )
    assert plain.token_ids == extended.token_ids


def test_files_remember_groups(tmp_path: Path) -> None:
    context = loaded().read(LONG, "selfextend")
    asked = context.ask(QUESTIONS[0], max_new_tokens=8)
    context.save(tmp_path / "far.ctx")
    opened = loaded().open(tmp_path / "far.ctx")
    assert opened.positions.grouping is not None and opened.positions.agrees(context.positions)
    assert opened.ask(QUESTIONS[0], max_new_tokens=8).token_ids == asked.token_ids


def test_generate_sees_pairs_too() -> None:
    model = loaded()
    contexts = [model.read(text, "selfextend(group=4)") for text in (LONG, MIDDLE)]
    inputs = model.inputs(contexts, list(QUESTIONS[:2]))
    out = model.hf.generate(**inputs, max_new_tokens=6, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    for row, context, question in zip(out.tolist(), contexts, QUESTIONS, strict=False):
        alone = context.ask(question, max_new_tokens=6)
        assert tuple(row[: len(alone.token_ids)]) == alone.token_ids
    with pytest.raises(CapacityError, match=r"different positions \(default, selfextend\)"):
        model.inputs([contexts[0], model.read(MIDDLE)], list(QUESTIONS[:2]))


# -- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("selfextend(group=0)", "group=0 is too small; give 1 or more"),
        ("selfextend(window=0)", "window=0 is too small"),
        ("selfextend(group=4, factor=2)", "group=4 and factor=2 both say how far to reach; give one of them"),
        ("selfextend | snapkv:40", "cannot be combined with 'snapkv'"),
    ],
)
def test_a_mistake_is_named(plan: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Plan.parse(plan)


def test_a_window_that_leaves_nothing_far_does_not_apply() -> None:
    with pytest.raises(
        PlanDoesNotApply, match="window=128 leaves no position for far tokens; the trained length is 128"
    ):
        loaded().read(LONG, "selfextend(window=128)")


def test_a_store_that_looks_at_queries_does_not_apply() -> None:
    with pytest.raises(PlanDoesNotApply, match="zipcache packs by what queries look at, and under selfextend"):
        loaded().read(LONG, "selfextend | zipcache")
