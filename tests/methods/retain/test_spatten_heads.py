"""SpAtten's cascade of heads: by hand, in every use of a context with its decisions replayed, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from farspan.cache import SequenceCache
from farspan.cache.sequence import Pruned
from farspan.context import Context
from farspan.errors import PlanDoesNotApply, PlanError
from farspan.methods.retain.spatten_heads import SpattenHeads
from farspan.plan import Plan
from farspan.runtime.pruning import Pruning, silence
from farspan.testing import allocated_bytes
from tests.oracle.pairwise import pairwise
from tests.oracle.replayed import assert_noticed, replayed
from tests.oracle.situations import BATCHES, LONG, ORDERS, OTHER, SITUATIONS, ask, pair

PLANS = (
    "spatten_heads:50",
    "pyramid:50 | spatten_heads(heads=0.4)",
    "adakv:50 | spatten_heads | int8",
    "ems:50 | spatten_heads(decode=50)",
    "spatten_heads:100% | int4 | offload",
)
KINDS = ("llama", "qwen3", "phi3", "gpt2", "opt")
COVERING = pairwise({"kind": KINDS, "plan": PLANS, "order": ORDERS, "batch": BATCHES, "situation": tuple(SITUATIONS)})


def pruned(context: Context) -> list[tuple[int, ...]]:
    return [layer.pruned for layer in context._cache.layers]


def test_the_first_layers_keep_all_heads_and_the_last_its_share() -> None:
    left = [SpattenHeads(heads=0.5).heads_left(layer, 12, 12) for layer in range(12)]
    assert left == [12, 12, 12, 12, 12, 11, 10, 9, 9, 8, 7, 6]
    assert [SpattenHeads(heads=0.01).heads_left(layer, 4, 4) for layer in range(4)] == [4, 4, 3, 1]


def test_importance_is_summed_over_layers_channels_and_query_heads_and_what_went_stays_gone() -> None:
    """Four key-value heads of two query heads each; one token with two channels. Half of 4 layers' heads go.

    Layer 0 puts out (3, 1, 4, 1), layer 1 (1, 4, 0.5, 1): together 4, 5, 4.5 and 2, so layer 2 is without head 3,
    where layer 1 alone would have let head 2 go. Layer 2 adds (0, 1, 1, -): 4, 6, 5.5, so head 0 follows in layer 3,
    where it joins head 3, which is not asked again whatever it drew before.
    """
    drawn = [[3.0, 1.0, 4.0, 1.0], [1.0, 4.0, 0.5, 1.0], [0.0, 1.0, 1.0, 9.0]]
    chosen = Pruning(SpattenHeads(), [0, 1, 2, 3], torch.zeros(4, dtype=torch.float64))
    cache = SequenceCache.empty((None,) * 4)
    for layer in cache.layers:
        chosen.choose(cache, layer)
        if layer.index < 3:
            quarters = torch.tensor(drawn[layer.index]) / 4
            out = torch.stack([quarters, -quarters], -1).repeat_interleave(2, 0)[None]  # [T=1, Hq=8, Dv=2]
            layer.tail.append(torch.zeros(4, 1, 2), torch.zeros(4, 1, 2), 0)
            silence([layer], [1], out)
            chosen.note(cache, layer, out)
    assert [layer.pruned for layer in cache.layers] == [(), (), (3,), (0, 3)]
    assert chosen.drawn.tolist() == [4.0, 6.0, 5.5, 2.0], "a pruned head puts out nothing that could count"


@pytest.mark.parametrize("row", COVERING, ids=lambda row: "-".join(str(value) for value in row.values()))
def test_logits_are_those_of_the_replayed_decisions(row: dict, tmp_path: Path) -> None:
    for chain in replayed(row, tmp_path):
        assert all(pruned(context) == pruned(chain[0]) for context in chain), "no head comes back"
        assert chain[-1].held_bytes == allocated_bytes(chain[-1]._cache)


@pytest.mark.parametrize("order", ORDERS)
def test_heads_that_were_pruned_without_a_word_would_be_noticed(order: str) -> None:
    assert_noticed("llama", f"spatten_heads:100% | {order}", lambda event: isinstance(event, Pruned))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("budget", ["50", "100%"])
def test_pruned_heads_hold_nothing_and_free_their_share(budget: str, order: str) -> None:
    model, _ = pair("llama")
    context = model.read(LONG, f"spatten_heads:{budget} | {order}")
    sibling = model.read(LONG, f"spatten:{budget} | {order}")
    gone = pruned(context)
    assert [len(heads) for heads in gone] == [0, 0, 1]
    for view, heads in zip(context.inspect(), gone, strict=True):
        counts = [len(positions) for positions in view.positions]
        assert all((count == 0) == (head in heads) for head, count in enumerate(counts))
    entry = model.layout.layers[0].entry_bytes(torch.float32) + 4 + 4  # a position, and the attention drawn
    assert budget != "50" or sibling.held_bytes - context.held_bytes == 50 * entry
    assert context.held_bytes < sibling.held_bytes
    assert context.cost.peak_bytes <= context.cost.stated_peak_bytes
    longer = ask(context.append(OTHER), OTHER * 4, "single", tokens=150)[0].context
    last = longer._cache.layers[2]
    assert last.extents and len(last.tail) < 150
    assert all(extent.counts[head] == 0 for extent in last.extents for head in gone[2])


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", ["0", "1", "-0.5", "2"])
def test_a_share_of_heads_that_is_none_is_refused(heads: str) -> None:
    with pytest.raises(PlanError, match="no share of the heads to keep; give more than 0 and less than 1"):
        Plan.parse(f"spatten_heads:50(heads={heads})")


def test_models_in_which_no_head_or_none_by_number_could_go_are_refused() -> None:
    model, _ = pair("llama")
    with pytest.raises(PlanDoesNotApply, match=r"heads=0.9 prunes none of the 2 key-value heads in 3 layers"):
        model.read(LONG, "spatten_heads:50(heads=0.9)")
    with pytest.raises(PlanDoesNotApply, match="prunes none of the 2 key-value heads in 1 layers of full attention"):
        pair("gemma3")[0].read(LONG, "spatten_heads:50")
    one, *rest = model.layout.layers
    other = replace(model.layout, layers=(replace(one, heads=4), *rest))
    with pytest.raises(PlanDoesNotApply, match="heads are pruned by number, and this model's layers have 2 or 4"):
        other.check(Plan.parse("spatten_heads:50"))


@pytest.mark.parametrize("other", ["quest:20", "ashape", "concat"])
def test_methods_that_reckon_with_every_head_are_refused(other: str) -> None:
    with pytest.raises(PlanError, match=r"'spatten_heads' cannot be combined with '.*': it excludes the slot"):
        Plan.parse(f"spatten_heads:50 | {other}")
