"""HOMER: merging pieces on the way up the layers, held against a twin that keeps every piece of every height."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

import farspan
from farspan.cache import SequenceCache
from farspan.errors import BudgetError, PlanDoesNotApply, PlanError
from farspan.methods.parallel._merging import Asking
from farspan.methods.parallel.homer import Homer
from farspan.model import Model
from farspan.plan import Plan
from farspan.runtime.hf import Runtime
from farspan.runtime.hf_inspect import prepare_model
from farspan.runtime.merging import Hierarchy, read_merged
from farspan.runtime.reader import Job
from farspan.runtime.step import Meter, Row, Step
from farspan.testing import check_method
from farspan.testing.reads import allocated_bytes
from tests.models import tiny, tiny_tokenizer
from tests.oracle.recording import TOLERANCE, agreement, recording
from tests.oracle.situations import BATCHES, LONG, MIDDLE, QUESTIONS, SHORT, SITUATIONS, pair
from tests.test_composition import held, same

LAYERS = 7


def merged(
    method: Homer, ids: Tensor, prefix: int = 2, probe: Tensor | None = None, layers: int = LAYERS, kind: str = "llama"
) -> tuple[SequenceCache, Hierarchy, Any]:
    prepared = prepare_model(tiny(kind, layers=layers))
    runtime = Runtime(prepared, prepared.positions(4096))
    job = Job(prepared.layout.empty(), ids, Plan.parse(f"stream(chunk=23) | {method_text(method)}"), probe)
    tree = Hierarchy.of(job, prefix, method, prepared.layout)
    cache, report = read_merged(runtime, tree)
    return cache, tree, (runtime, report)


def method_text(method: Homer) -> str:
    return str(Plan((method,)))


# -- the twin: breadth first, every piece of a height at once, by the model's own layers under a mask ---------------


def through(twin: PreTrainedModel, layer: int, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor, Any]:
    """hidden [n, d] -> after the layer, with its queries, keys and values [H, n, D] there."""
    module, body = twin.model.layers[layer], twin.model
    cos_sin = body.rotary_emb(hidden[None], positions[None])
    cache, n = DynamicCache(), hidden.shape[0]
    mask = torch.full((n, n), -math.inf).triu(1)[None, None]
    out = module(hidden[None], attention_mask=mask, position_embeddings=cos_sin, past_key_values=cache)
    asked = module.self_attn.q_proj(module.input_layernorm(hidden[None])).unflatten(-1, (-1, 16)).transpose(1, 2)
    queries, _ = apply_rotary_pos_emb(asked, asked, *cos_sin)
    out = out[0] if isinstance(out, tuple) else out
    held = cache.layers[layer]
    return out.view(n, -1), queries[0], held.keys[0], held.values[0]


def naive(twin: PreTrainedModel, tree: Hierarchy, ids: Tensor, probe: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """-> per layer: keys, values and numbers of what is left of the text. Piece after piece, as the paper's figure."""
    total, head, tail, method = ids.numel(), tree.head, tree.rear + probe.numel(), tree.method
    everything = torch.cat([ids, probe])
    pieces = []
    for start, stop in tree.cuts:
        numbers = torch.tensor([*range(head), *range(start, stop), *range(total - tree.rear, total + probe.numel())])
        longest = max(b - a for a, b in tree.cuts)
        stands = torch.tensor([*range(head + stop - start), *range(head + longest, head + longest + tail)])
        hidden = twin.model.embed_tokens(everything[numbers])
        pieces.append({"numbers": numbers, "stands": stands, "hidden": hidden, "held": []})
    first = 0
    for height, stop in enumerate(tree.stops):
        last = height == len(tree.stops) - 1
        most = tree.budget + probe.numel() if last else head + (method.chunk - head - tail) // 2 + tail
        for piece in pieces:
            for layer in range(first, stop):
                piece["hidden"], queries, keys, values = through(twin, layer, piece["hidden"], piece["stands"])
                piece["held"].append((keys, values))
            n = piece["numbers"].numel()
            if n > most:
                matters = worth(method, queries, keys, piece["stands"])
                between = matters[head : n - tail].sort(descending=True, stable=True).indices[: most - head - tail]
                stays = torch.cat([torch.arange(head), head + between.sort().values, torch.arange(n - tail, n)])
                piece["held"] = [(k[:, stays], v[:, stays]) for k, v in piece["held"]]
                for name in ("numbers", "stands", "hidden"):
                    piece[name] = piece[name][stays]
        if not last:
            pieces = [two(a, b, head, tail) for a, b in zip(pieces[::2], pieces[1::2], strict=True)]
        first = stop
    (piece,) = pieces
    text = piece["numbers"] < total
    return [(k[:, text], v[:, text], piece["numbers"][text]) for k, v in piece["held"]]


def worth(method: Homer, queries: Tensor, keys: Tensor, stands: Tensor) -> Tensor:
    """-> [n]: pair by pair, what the docstring says."""
    n, group = keys.shape[1], queries.shape[0] // keys.shape[0]
    keys = keys.repeat_interleave(group, 0)
    score = lambda i, j: max((queries[:, i] * keys[:, j]).sum(-1)) / 4  # noqa: E731
    best = [score(n - 1, j) for j in range(n)]
    if not method.calibration:
        return torch.stack(best)
    known: dict[int, list[Tensor]] = {}
    asks = [(w + 1) * n // min(method.calibration, n) - 1 for w in range(min(method.calibration, n))]
    octave = lambda d: int(8 * math.log2(1 + d))  # noqa: E731
    for i in asks:
        for j in range(i + 1):
            distance = int(stands[i] - stands[j])
            if distance >= 0:
                known.setdefault(octave(distance), []).append(score(i, j))
    usual = [torch.stack(known[octave(int(stands[-1] - stands[j]))]).mean() for j in range(n)]
    return torch.stack(best) - torch.stack(usual)


def two(left: dict, right: dict, head: int, tail: int) -> dict:
    def cat(a: Tensor, b: Tensor, axis: int) -> Tensor:
        n, m = a.shape[axis], b.shape[axis]
        mean = (a.narrow(axis, 0, head) + b.narrow(axis, 0, head)) / 2
        end = (a.narrow(axis, n - tail, tail) + b.narrow(axis, m - tail, tail)) / 2
        middles = a.narrow(axis, head, n - head - tail), b.narrow(axis, head, m - head - tail)
        return torch.cat([mean, *middles, end], axis)

    either = {name: cat(left[name], right[name], 0).to(left[name].dtype) for name in ("numbers", "stands", "hidden")}
    pairs = zip(left["held"], right["held"], strict=True)
    return {**either, "held": [tuple(cat(a, b, 1) for a, b in zip(one, two, strict=True)) for one, two in pairs]}


@pytest.mark.parametrize("calibration", [0, 5])
@pytest.mark.parametrize("probe", [0, 3])
@pytest.mark.parametrize(("tokens", "height"), [(25, 0), (80, 2), (161, 3)])
@torch.inference_mode()
def test_depth_first_reading_holds_what_the_twin_holds_that_keeps_every_piece(
    tokens: int, height: int, probe: int, calibration: int
) -> None:
    ids, asked = (torch.randint(3, 131, (n,), generator=torch.Generator().manual_seed(n)) for n in (tokens, probe))
    method = Homer(chunk=34, ends=3, budget=farspan.budget.Budget.parse(20), calibration=calibration)
    cache, tree, _ = merged(method, ids, probe=asked if probe else None)
    assert tree.height == height
    twin = naive(tiny("llama", layers=LAYERS), tree, ids, asked)
    for layer, (keys, values, numbers) in zip(held(cache), twin, strict=True):
        assert torch.equal(layer[2], numbers.expand(2, -1).int()), "the same tokens stay"
        for one, other in zip(layer[:2], (keys, values), strict=True):
            assert torch.allclose(one, other, atol=2e-4 * float(other.abs().max())), "with the same keys and values"
    assert numbers.numel() == 20


# -- memory ---------------------------------------------------------------------------------------------------------


def test_what_is_held_meanwhile_grows_with_the_logarithm_of_the_pieces() -> None:
    """Counted: keys of all layers that are alive while the next piece is read."""
    peaks, change = {}, Meter.change
    for height in range(2, 6):
        alive: list[int] = []

        def counted(self: Meter, before: int, after: int, transit: int = 0, alive: list[int] = alive) -> None:
            change(self, before, after, transit)
            alive.append(self.now)

        ids = torch.randint(3, 131, (6 + 22 * 2**height,), generator=torch.Generator().manual_seed(height))
        with mock.patch.object(Meter, "change", counted):
            _, tree, (_, report) = merged(Homer(chunk=28, ends=2, warmup=1), ids)
        assert tree.height == height and len(tree.cuts) == 2**height
        assert report.peak_bytes <= report.stated_peak_bytes
        peaks[height] = max(alive)
    piece = 28 * LAYERS * 2 * 2 * 16 * 4  # a piece's keys and values in every layer
    steps = [peaks[h + 1] - peaks[h] for h in range(2, 5)]
    assert all(step <= piece for step in steps), "twice as many pieces, at most one more that waits"
    assert peaks[5] < 4 * piece < 32 * piece, "where all pieces of the lowest height would be 32"


@settings(max_examples=20)
@given(st.integers(1, 400), st.integers(0, 20), st.integers(1, 6), st.integers(0, 9))
def test_bounds_and_shapes_hold_for_every_length(tokens: int, prefix: int, ends: int, probe: int) -> None:
    ids = torch.randint(3, 131, (tokens,), generator=torch.Generator().manual_seed(tokens))
    asked = torch.randint(3, 131, (probe,)) if probe else None
    prefix = min(prefix, tokens - 1)
    cache, tree, (runtime, report) = merged(Homer(chunk=64, ends=ends, warmup=0), ids, prefix, asked)
    assert report.peak_bytes <= report.stated_peak_bytes
    assert cache.nbytes == allocated_bytes(cache) and cache.seen == tokens
    assert [b for _, b in tree.cuts[:-1]] == [a for a, _ in tree.cuts[1:]]
    ends_held = {*range(tree.head), *range(tokens - tree.rear, tokens)}
    for layer in cache.layers:
        its = layer.positions(0).tolist()
        assert its == layer.positions(1).tolist() == cache.layers[0].positions(0).tolist()
        assert ends_held <= set(its) and len(its) <= min(64, tokens) and its == sorted(set(its))
    assert cache.next_position <= 64 and (tokens > 64 - probe or cache.next_position == tokens)
    logits = runtime.logits(runtime.forward(ids[:1], Step([Row(cache, 1)])))
    assert bool(logits.isfinite().all())


# -- as a context ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> Model:
    tokenizer = tiny_tokenizer()
    return farspan.load(tiny("llama", vocab_size=len(tokenizer), layers=6), tokenizer=tokenizer)


def test_a_text_within_a_piece_is_a_plain_read(model: Model) -> None:
    whole, plain = model.read(LONG, "homer"), model.read(LONG)
    assert same(whole._cache, plain._cache, 1e-5) and whole.next_position == plain.next_position
    answers = [c.ask(QUESTIONS[0], max_new_tokens=8).token_ids for c in (whole, plain)]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("situation", [name for name in SITUATIONS])
@pytest.mark.parametrize("plan", ["homer:60(chunk=150, ends=6)", "homer(chunk=150, ends=6) | int8"])
def test_what_follows_is_replayed_over_what_is_held(plan: str, situation: str, batch: str, tmp_path: Path) -> None:
    model, twin = pair("llama")
    probe = QUESTIONS[0] if situation == "probe" else None
    with recording() as record:
        (context,) = model.read_batch([[LONG, SHORT]], plan, probes=[probe], trace=True)
        assert context.next_position < context.seen and context.held <= 150
        chains = SITUATIONS[situation](context, batch, tmp_path)
    for chain in chains:
        assert agreement(twin, record, *chain) <= TOLERANCE


@pytest.mark.parametrize("probe", [None, QUESTIONS[0]])
@pytest.mark.parametrize("store", ["", "int8", "int2(group=16)", "fp8", "int4(group=16) | offload"])
@pytest.mark.parametrize("plan", ["homer(chunk=200, ends=6)", "homer:60(chunk=200, ends=6)"])
def test_what_it_needs_is_foreseen(model: Model, plan: str, store: str, probe: str | None) -> None:
    plan = f"{plan} | {store}" if store else plan
    context = model.read([LONG, SHORT], plan, probe=probe)
    asked = 0 if probe is None else model.prompts.question(probe, last=None, eos=model.eos).numel()
    foreseen = model.foresee(context.seen, plan, probe=asked)
    assert foreseen.peak_bytes == context.cost.stated_peak_bytes >= context.cost.peak_bytes
    assert "offload" in store or 0.9 < context.held_bytes / foreseen.held_bytes <= 1


def test_positions_stay_within_a_piece_however_long_the_text_is(model: Model) -> None:
    context = model.read("\n".join([LONG] * 12), "homer:10%(chunk=400, ends=20)")
    assert context.seen > 1500 and context.next_position <= 400 and context.held == context.seen // 10
    assert context.ask(QUESTIONS[0], max_new_tokens=3).usage.seen == context.seen


def test_what_was_merged_is_saved_opened_and_composed(model: Model, tmp_path: Path) -> None:
    context = model.read([LONG, SHORT], "homer:60(chunk=70, ends=6) | int8")
    context.save(tmp_path / "a.ctx")
    opened = model.open(tmp_path / "a.ctx")
    answers = [c.ask(QUESTIONS[0], max_new_tokens=6).token_ids for c in (context, opened)]
    assert answers[0] == answers[1]
    both = model.compose([opened, model.read(MIDDLE, "int8")])
    assert both.next_position == opened.next_position + len(model.tokenizer.encode(MIDDLE))
    assert both.ask(QUESTIONS[0], max_new_tokens=3).usage.seen == both.seen


# -- choosing -------------------------------------------------------------------------------------------------------


def asking(scores: list[list[float]], positions: list[int]) -> Asking:
    """One head of size n: a key per token, and queries whose products with them are just these."""
    n = len(scores[0])
    at = torch.arange(n - len(scores), n)
    return Asking(torch.tensor([scores]), at, torch.eye(n)[None], torch.tensor(positions), 1.0)


def test_a_worked_example_near_tokens_count_for_less_than_their_score() -> None:
    """Next to TOVA, which keeps what the last token attends to most: here 5 tokens, the last of which scores

        its own 9, distance 1: 4, 2: 1, 3: 3, 4: 2.

    The one before scores distance 0: 9 and distance 1: 6, so distance 1 is worth 5 on average, 0: 9, 2: (1 + 1) / 2,
    3: (3 + 1) / 2 = 2. What is left: 0, -1, 0, 1, and 2 - 2 = 0 where nothing else is known of distance 4.
    """
    scores = [[1.0, 1.0, 6.0, 9.0, 99.0], [2.0, 3.0, 1.0, 4.0, 9.0]]
    looked = asking(scores, [0, 1, 2, 3, 4])
    assert Homer(calibration=2).significance(looked).tolist() == [0.0, 1.0, 0.0, -1.0, 0.0]
    assert Homer(calibration=0).significance(looked).tolist() == scores[1]


def test_the_highest_head_counts_and_merged_pieces_share_distances() -> None:
    """Tokens 0 and 1 stand where 2 and 3 do; the score of the later half's first query to a token that stands behind
    it says nothing about any distance.
    """
    one = [[5.0, 7.0, 1.0, 0.0, 0.0], [2.0, 4.0, 3.0, 1.0, 0.0]]
    other = [[0.0] * 5, [3.0, 1.0, 0.0, 2.0, 6.0]]
    looked = Asking(
        torch.tensor([one, other]), torch.tensor([2, 4]), torch.eye(5)[None], torch.tensor([0, 1, 0, 1, 2]), 1.0
    )
    # the last token: max over heads 3, 4, 3, 2, 6 at distances 2, 1, 2, 1, 0; token 2 at 0: 5 and 1 at distance 0
    usual = {2: 3.0, 1: 3.0, 0: (6 + 5 + 1) / 3}
    expected = [3 - usual[2], 4 - usual[1], 3 - usual[2], 2 - usual[1], 6 - usual[0]]
    assert Homer(calibration=2).significance(looked).tolist() == expected


def test_layers_are_shared_out_as_in_the_paper() -> None:
    """32 layers, 12 of warm-up: 4 heights have 5 each; 8 heights 2 each, and the 4 that are left go to the pieces."""
    assert Homer().stops(32, 3) == [17, 22, 27, 32]
    assert Homer().stops(32, 7) == [18, 20, 22, 24, 26, 28, 30, 32]
    assert Homer(warmup=0).stops(4, 3) == [1, 2, 3, 4]
    assert Homer().stops(4, 3) == [1, 2, 3, 4], "the warm-up gives way to the merges"


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("homer(ends=0)", "needs a last token that asks"),
        ("homer(chunk=200)", "give chunk=202 or more"),
        ("homer(warmup=-1)", "warmup=-1 is no count"),
        ("homer(calibration=-1)", "calibration=-1 is no count"),
        ("homer | snapkv:100", "excludes the slot 'score'"),
        ("homer | quest:64", "excludes the slot 'fetch'"),
        ("homer | ashape", "excludes the slot 'prefill'"),
        ("homer | layerwise", "cannot decide in layerwise order"),
    ],
)
def test_parameters_are_checked_when_the_plan_is_built(plan: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Plan.parse(plan)


def test_texts_that_it_cannot_merge_are_refused_with_what_to_type(model: Model) -> None:
    text = "\n".join([LONG] * 30)
    with pytest.raises(
        PlanError, match=r"homer: .* 128 pieces is merged 7 times, and 6 layers .* allow 5; give chunk=280$"
    ):
        model.read(text, "homer(chunk=70, ends=6)")
    assert model.read(text, "homer(chunk=280, ends=6)").held <= 280, "what the message says works"
    with pytest.raises(PlanError, match=r"a warm-up of 4 allow 1; give chunk=\d+, or a shorter warm-up$"):
        model.read(text, "homer(chunk=280, ends=6, warmup=4)")
    with pytest.raises(BudgetError, match=r"homer:500 comes to 500 .*no more than chunk=400; give chunk=500"):
        model.read(text, "homer:500(chunk=400, ends=20)")
    with pytest.raises(BudgetError, match=r"the text's ends alone are 40; give a budget of at least 41"):
        model.read(text, "homer:30(chunk=400, ends=20)")
    with pytest.raises(PlanError, match=r"fill chunk=44; give chunk=\d+ or more"):
        model.read(text, "homer(chunk=44, ends=20)", probe=QUESTIONS[0])
    with pytest.raises(PlanDoesNotApply, match="zipcache packs by what queries look at"):
        model.read(text, "homer(chunk=400) | zipcache")
    with pytest.raises(PlanError, match="these have been read; compose them with 'concat'"):
        model.compose([model.read(LONG), model.read(MIDDLE)], "homer")


@pytest.mark.parametrize("kind", ["qwen3", "phi3", "gpt2", "opt"])
def test_the_contract_is_kept_on_other_architectures(kind: str) -> None:
    """Normalised queries, one projection for all three, learned positions."""
    check_method("homer", models=(kind,))


def test_layers_with_a_window_of_their_own_are_refused() -> None:
    with pytest.raises(PlanDoesNotApply, match="layer 0 of this model sees 24 tokens alone; use concat"):
        pair("gemma3")[0].read(LONG, "homer")
