"""pod: by hand, through every use of a context with its decisions replayed, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from farspan.attention import Led, Rows, attend
from farspan.cache import DenseBlock, Extent, KeylessBlock, LayerCache, SequenceCache
from farspan.cache.sequence import Followed
from farspan.errors import PlanDoesNotApply, PlanError
from farspan.methods.store.pod import Pod
from farspan.plan import Plan
from farspan.registry import names
from farspan.runtime.layout import ModelLayout
from farspan.runtime.packing import Packing
from farspan.testing import allocated_bytes
from tests.oracle.pairwise import pairwise
from tests.oracle.recording import TOLERANCE, agreement, recording
from tests.oracle.replayed import assert_noticed, replayed
from tests.oracle.situations import BATCHES, LONG, ORDERS, OTHER, SITUATIONS, ask, pair

SMALL = "pod(sinks=4, recent=8)"
PLANS = (SMALL, f"{SMALL} | offload", "pod(layers='0-1', sinks=0, recent=0)", "pod(group=3, sinks=1, recent=30)")
KINDS = ("llama", "qwen3", "phi3", "gpt2", "opt")
COVERING = pairwise({"kind": KINDS, "plan": PLANS, "order": ORDERS, "batch": BATCHES, "situation": tuple(SITUATIONS)})


def two_layers(store: Pod, sealed: int, keys: list[list[float]], values: list[list[float]]) -> list[LayerCache]:
    """Layer 1 follows layer 0: of each, keys and values of one head and one channel; the first `sealed` have sealed."""
    cache = SequenceCache.empty((None, None))
    cache.lead(store.follows([0, 1]))
    for layer, its_keys, its_values in zip(cache.layers, keys, values, strict=True):
        layer.tail.append(*(torch.tensor(its)[None, :, None] for its in (its_keys, its_values)), 0)
        layer.seal_tail(Packing(store).at(layer), count=sealed)
    return cache.layers


def test_a_follower_weighs_distant_tokens_as_its_leader_and_near_ones_by_itself() -> None:
    """A sink, two distant tokens and the newest. Leader: query 1 on keys (9, ln 1, ln 3, 9). Follower: query 2.

    Its own scores of the proximal: 2 · (ln 2) / 2 = ln 2 for the sink, 0 for the newest: mass 2 + 1. The leader's of
    the distant: mass 1 + 3. So the gate is 3/7, the output 3/7 · (2 · 10 + 1 · 40) / 3 + 4/7 · (1 · 20 + 3 · 30) / 4.
    With the follower's own keys (sibling: any store that keeps them) distant tokens would weigh e^10 and e^-8.
    """
    layers = two_layers(
        Pod(sinks=1),
        3,
        [[9.0, 0.0, math.log(3), 9.0], [math.log(2) / 2, 5.0, -4.0, 0.0]],
        [[0.0] * 4, [10.0, 20.0, 30.0, 40.0]],
    )
    led = Led(torch.tensor([[[1.0]]]), 1.0)
    out = attend(torch.tensor([[[2.0]]]), [Rows(layers[1], 0, 1, led=led)], 1.0)
    prox, dist = (2 * 10 + 40) / 3, (20 + 3 * 30) / 4
    torch.testing.assert_close(out.flatten(), torch.tensor([3 / 7 * prox + 4 / 7 * dist]))
    own = torch.tensor([math.log(2), 10.0, -8.0, 0.0]).softmax(0) @ torch.tensor([10.0, 20.0, 30.0, 40.0])
    assert abs(float(own) - 20) < 0.02 and abs(float(out) - float(own)) > 4


def test_a_follower_holds_values_and_the_keys_of_sinks() -> None:
    g = torch.Generator().manual_seed(3)
    keys, values = ([torch.randn(40, generator=g).tolist() for _ in range(2)] for _ in range(2))
    leader, follower = two_layers(Pod(sinks=3), 40, keys, values)
    block = follower.extents[0].block
    assert isinstance(leader.extents[0].block, DenseBlock) and isinstance(block, KeylessBlock)
    assert (leader.nbytes, follower.nbytes) == (4 * (40 + 40 + 40), 4 * (3 + 40 + 40))
    got, its, _ = follower.extents[0].entries()
    assert got.flatten()[:3].tolist() == pytest.approx(keys[1][:3])
    assert got.flatten()[3:].tolist() == pytest.approx(keys[0][3:])
    assert its.flatten().tolist() == pytest.approx(values[1])
    again = KeylessBlock.from_tensors(block.tensors(), block.data()).keyed(leader.extents[0].block)
    assert torch.equal(again.unpack(0, 40)[0], got)


@pytest.mark.parametrize("row", COVERING, ids=lambda row: "-".join(str(value) for value in row.values()))
def test_logits_are_those_of_the_replayed_sharing(row: dict, tmp_path: Path) -> None:
    for chain in replayed(row, tmp_path):
        assert chain[-1].held_bytes == allocated_bytes(chain[-1]._cache)


@pytest.mark.parametrize("order", ORDERS)
def test_sharing_that_was_not_replayed_would_be_noticed(order: str) -> None:
    assert_noticed("llama", f"{SMALL} | {order}", lambda event: isinstance(event, Followed))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("plan", PLANS)
def test_bytes_are_foreseen_and_layers_that_follow_hold_no_distant_key(plan: str, order: str) -> None:
    model, _ = pair("llama")
    context = model.read(LONG * 3, f"{plan} | {order}")
    store = Plan.parse(plan).get("store")
    assert isinstance(store, Pod)
    tokens, layout = context.seen, model.layout.layers[0]
    entry = layout.heads * layout.head_size * 4
    full = context.full_bytes
    followers = len(store.follows([0, 1, 2]))
    spared = followers * (tokens - store.sinks - store.recent) * entry
    positions = 3 * 4 * (tokens - store.recent)  # one for all heads, and none in the tail
    assert context.held_bytes + context.elsewhere_bytes == full - spared + positions
    assert context.cost.peak_bytes <= context.cost.stated_peak_bytes
    if "offload" not in plan:
        every = 3 * 4 * layout.heads * tokens  # what is foreseen has a position for every head
        assert model.foresee(tokens, plan).held_bytes - every == context.held_bytes - positions


def test_runs_that_seal_while_answering_are_joined_in_both_layers() -> None:
    model, twin = pair("llama")
    with recording() as record:
        turns = [model.read_batch([LONG], SMALL, trace=True)[0]]
        for question in (OTHER * 6, OTHER * 4):
            turns.append(ask(turns[-1], question, "single", tokens=200)[0].context)
    leader, follower = turns[-1]._cache.layers[:2]
    assert len(leader.extents) < (turns[-1].seen - turns[0].seen) // 128
    assert all(mine.follows is its for mine, its in zip(follower.extents, leader.extents, strict=True))
    assert turns[-1].held_bytes == allocated_bytes(turns[-1]._cache)
    assert agreement(twin, record, *turns) <= TOLERANCE


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [*names("retain"), "quest", "ashape", "concat"])
def test_methods_that_choose_or_move_entries_are_refused(other: str) -> None:
    plan = f"{other}:64" if other in (*names("retain"), "quest") else other
    with pytest.raises(PlanError, match=r"'pod' cannot be combined with '.*': it excludes the slot"):
        Plan.parse(f"{plan} | pod")


UNFIT = [
    ("group=1", "group=1 is too small; give 2 or more"),
    ("sinks=-1", "sinks=-1 is too small"),
    ("layers='0+1'", "no list of runs of layers; write them such as '0-1, 4-6'"),
    ("layers='1-1'", "every run ends after it begins"),
    ("layers='0-1, 1-2'", "before the next begins"),
]


@pytest.mark.parametrize(("written", "said"), UNFIT)
def test_parameters_that_make_no_groups_are_refused(written: str, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        Plan.parse(f"pod({written})")


def test_layers_that_are_not_there_or_not_alike_are_refused() -> None:
    model, _ = pair("llama")
    with pytest.raises(PlanDoesNotApply, match="names layer 3, and this model's full-attention layers are 0, 1, 2"):
        model.read(LONG, "pod(layers='2-3')")
    with pytest.raises(PlanDoesNotApply, match="only 1 of this model could"):
        pair("gemma3")[0].read(LONG, "pod")
    one, *rest = model.layout.layers
    other: ModelLayout = replace(model.layout, layers=(one, replace(one, heads=2 * one.heads), *rest))
    with pytest.raises(PlanDoesNotApply, match="layer 1 go by the keys of layer 0, and their heads differ"):
        other.check(Plan.parse("pod"))


def test_what_would_take_keys_apart_is_refused() -> None:
    model, _ = pair("llama")
    context = model.read(LONG, SMALL)
    with pytest.raises(PlanDoesNotApply, match="have the keys of others, entry for entry"):
        context.drop((5, 9))
    with pytest.raises(PlanError, match="'pod' cannot be combined with 'concat'"):
        model.compose([context, model.read(OTHER, SMALL)])
    with pytest.raises(PlanDoesNotApply, match="pod takes scores from other layers, and selfextend"):
        model.read(LONG, f"{SMALL} | selfextend")


def test_an_extent_is_bound_to_the_same_entries_or_not_at_all() -> None:
    values = torch.zeros(6, 1)
    mine = Extent(KeylessBlock.pack(values, values, 1, 0, 0), torch.arange(6), (0, 6), shared=True)
    with pytest.raises(AssertionError, match="hold the same entries"):
        mine.following(Extent.dense(values[None, :5], values[None, :5], torch.arange(5)))
