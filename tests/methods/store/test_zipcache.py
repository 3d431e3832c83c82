"""zipcache by hand: which entries are salient, what evening out channels saves, and what a block weighs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from farspan.cache import MixedBlock, block_from_tensors
from farspan.errors import PlanError
from farspan.methods.store.int2 import Int2
from farspan.methods.store.zipcache import Zipcache
from farspan.plan import Plan
from farspan.testing import allocated_bytes
from tests.oracle.pairwise import pairwise
from tests.oracle.recording import TOLERANCE, agreement, recording
from tests.oracle.situations import BATCHES, LONG, ORDERS, SITUATIONS, ask, pair, read


def mixed(values: torch.Tensor, salient: list[bool]) -> MixedBlock:
    return MixedBlock.pack(values, values, (len(values),), torch.tensor(salient), high=4, low=2)


def test_evening_out_channels_keeps_small_ones_beside_a_large_one() -> None:
    """Equations 5 to 7. Channels span 81 and 1: factors 9 and 1, so that a row (81, 1, 0, -0.5) becomes
    (9, 1, 0, -0.5): 15 steps of 9.5 / 15. Divided by nothing a step would be 81.5 / 15, and the small ones be lost.
    """
    values = torch.tensor([[81.0, 1.0, 0.0, -0.5], [-81.0, 0.5, 1.0, 1.0]])
    got = mixed(values, [True, True]).unpack(0, 2)[1]
    step = 9.5 / 15
    want = torch.tensor([9.0, round(1.5 / step) * step - 0.5, round(0.5 / step) * step - 0.5, -0.5])
    torch.testing.assert_close(got[0], want * torch.tensor([9.0, 1, 1, 1]), atol=0.02, rtol=1e-3)
    assert (got[0, 1:] - values[0, 1:]).abs().max() <= step / 2 + 0.01


def test_salient_entries_have_sixteen_levels_and_the_others_four() -> None:
    """Keys 0..15 in one channel: those marked span 0..14 and keep to within half of 14 / 15, the others, 1..15, have
    steps of 14 / 3.
    """
    keys = torch.arange(16.0)[:, None].repeat(1, 4)
    got = mixed(keys, [i % 2 == 0 for i in range(16)]).unpack(0, 16)[0][:, 0]
    assert (got[::2] - keys[::2, 0]).abs().max() <= 14 / 30 + 0.01
    levels = torch.tensor([1, 1 + 14 / 3, 1 + 28 / 3, 15])
    assert (got[1::2, None] - levels).abs().amin(1).max() < 0.02
    assert len(got[1::2].unique()) == 4 < len(got[::2].unique())


def test_any_run_unpacks_as_the_whole_does_and_a_block_survives_being_written() -> None:
    g = torch.Generator().manual_seed(0)
    counts = (13, 0, 40, 1)
    keys, values = torch.randn(54, 8, generator=g), torch.randn(54, 12, generator=g)
    block = MixedBlock.pack(keys, values, counts, torch.rand(54, generator=g) < 0.4, high=8, low=2)
    whole = block.unpack(0, 54)
    for start in range(0, 54, 5):
        for stop in range(start, 55, 7):
            for run, all_of in zip(block.unpack(start, stop), whole, strict=True):
                assert torch.equal(run, all_of[start:stop])
    again = block_from_tensors("mixed", block.tensors(), block.data())
    assert all(torch.equal(a, b) for a, b in zip(again.unpack(0, 54), whole, strict=True))
    assert block.nbytes == allocated_bytes(block)


def test_an_entry_weighs_its_codes_its_scale_and_a_bit() -> None:
    """1000 entries a head of 128 channels, 600 of them at 4 bits: in bytes, by section 3.2 plus the marks."""
    codes = 600 * 128 + 400 * 64  # keys and values together
    value_scales = 1000 * 4
    key_scales, factors = 2 * 128 * 4, 2 * 128 * 2
    per_head = codes + value_scales + key_scales + factors + 1000 / 8
    assert Zipcache().nbytes(1000, 8, 128, 128, torch.bfloat16) == 8 * per_head
    assert 8 * per_head < 0.23 * (1000 * 8 * 512)


def test_the_entries_that_the_last_queries_look_at_are_the_salient_ones() -> None:
    """Against the triangle itself: of a layer read whole, the attention of every tenth query, normalised."""
    model, _ = pair("llama")
    plan = "zipcache(salient=0.25, probes=1.0) | layerwise(chunk=4096)"
    asked: dict[int, torch.Tensor] = {}
    from farspan.runtime.step import Step

    real = Step.layer

    def noted(self, index, query, keys, values, scaling, pairs=None):
        asked.setdefault(index, torch.cat([query, keys.repeat_interleave(2, 0)], 0) * 1.0)
        return real(self, index, query, keys, values, scaling, pairs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Step, "layer", noted)
        context = model.read(LONG, plan)
    tokens = context.seen
    query, key = asked[0].split(4)
    scores = (query @ key.transpose(1, 2) / 4).masked_fill(~torch.ones(tokens, tokens).tril().bool(), -torch.inf)
    saliency = scores.softmax(-1).sum(1) / torch.arange(tokens, 0, -1)
    saliency = saliency.unflatten(0, (2, 2)).mean(1)
    block = context._cache.layers[0].extents[0].block
    assert isinstance(block, MixedBlock)
    for head in range(2):
        marked = block.marks(head * tokens, (head + 1) * tokens).nonzero().flatten().tolist()
        assert marked == sorted(saliency[head].topk(-(-tokens // 4)).indices.tolist())


def test_saliency_saves_what_matters_where_int2_saves_nothing() -> None:
    """The error that queries feel: with a quarter at 8 bits, attention comes out nearer than with 2 alone."""
    g = torch.Generator().manual_seed(3)
    keys, values = torch.randn(64, 16, generator=g), torch.randn(64, 16, generator=g)
    query = keys[5] * 4
    weights = (keys @ query / 4).softmax(0)
    marks = torch.zeros(64, dtype=torch.bool)
    marks[weights.topk(16).indices] = True
    truth = weights @ values

    def off(block) -> float:
        k, v = block.unpack(0, 64)
        return float(((k @ query / 4).softmax(0) @ v - truth).norm())

    block = MixedBlock.pack(keys, values, (64,), marks, high=8, low=2)
    assert off(block) < off(Int2().pack(keys, values, (64,))) / 5
    assert off(block) < off(MixedBlock.pack(keys, values, (64,), ~marks, high=8, low=2)) / 5


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        ("zipcache(salient=0)", r"salient=0.0 is no share"),
        ("zipcache(probes=1.5)", r"probes=1.5 is no share"),
        ("zipcache(high=2, low=4)", r"high=2 bits are fewer than low=4"),
        ("zipcache(high=3)", r"high is one of 8, 4, 2, not 3"),
    ],
)
def test_wrong_parameters_are_refused(plan: str, sentence: str) -> None:
    with pytest.raises(PlanError, match=sentence):
        Plan.parse(plan)


def test_a_question_lent_as_probe_decides_what_is_salient() -> None:
    model, _ = pair("llama")
    plan = "window:120 | zipcache(salient=0.3)"
    blocks = [model.read(LONG, plan, probe=q)._cache.layers[1].extents[0].block for q in (None, "How many letters?")]
    marks = [b.marks(0, b.entries) for b in blocks if isinstance(b, MixedBlock)]
    assert not torch.equal(*marks)


COVERING = pairwise(
    {
        "kind": ("llama", "gemma3", "gpt2"),
        "plan": ("zipcache", "adakv:40 | snapkv(window=8) | zipcache(salient=0.3, high=8)"),
        "order": ORDERS,
        "batch": BATCHES,
        "situation": ("third turn", "fork", "append to a conversation", "save and open"),
    }
)


@pytest.mark.parametrize("row", COVERING, ids=lambda row: "-".join(row.values()))
def test_logits_are_those_of_the_replayed_codes(row: dict, tmp_path: Path) -> None:
    model, twin = pair(row["kind"])
    with recording() as record:
        contexts = read(model, f"{row['plan']} | {row['order']}", row["batch"], row["situation"])
        chains = [chain for c in contexts for chain in SITUATIONS[row["situation"]](c, row["batch"], tmp_path)]
    for chain in chains:
        assert agreement(twin, record, *chain) <= TOLERANCE


def test_bytes_are_those_of_the_layout_and_of_storage() -> None:
    model, _ = pair("llama")
    context = model.read(LONG, "snapkv:60(window=8) | zipcache")
    assert context.held_bytes == allocated_bytes(context._cache) == model.layout.size_of(context.plan, context.seen)(60)
    answered = ask(context, "Why?", "single", tokens=200)[0].context
    assert answered.held_bytes == allocated_bytes(answered._cache)
