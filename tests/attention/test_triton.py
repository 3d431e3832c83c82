"""Triton's kernels, interpreted, are the definition: every kind of entry, mask and cut, on poisoned memory."""

from __future__ import annotations

import math
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from farspan.attention import Rows, attend, backend, triton
from farspan.attention.dense import naive
from farspan.attention.scaling import Scaling
from farspan.attention.triton import parts
from farspan.cache import LayerCache
from tests.attention.problems import Problem, agree, defined, made, problems

REASON = triton.available("cpu")
pytestmark = [pytest.mark.skipif(REASON is not None, reason=str(REASON)), pytest.mark.usefixtures("poisoned")]
launch: Any = import_module("farspan.attention.triton.launch") if REASON is None else None

KINDS = [32, 17, 16, 8, 4, 2]
TOLERANCE = {17: 4e-3, 4: 1e-6}  # products of a matrix of more rows may be summed in another order
few_examples = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=30
)


@pytest.fixture
def forced(monkeypatch):
    """Triton for everything, as a person would force it."""
    monkeypatch.setenv("FARSPAN_KERNELS", "triton")
    backend.cache_clear()
    yield
    backend.cache_clear()


@pytest.fixture
def short_runs(monkeypatch):
    """Few entries a program, so that short problems are cut into several."""
    monkeypatch.setattr(launch, "LEAST_RUN", 32)


def part_of(problem: Problem) -> parts.Part:
    part = launch.part_of(problem.extent)
    assert part is not None
    return launch.seen_by(part, slice(0, problem.query.shape[1]))


def run(problem: Problem, *its: parts.Part, dtype: torch.dtype = torch.float32, **more: Any) -> tuple[Tensor, Tensor]:
    held = its or [part_of(problem)]
    return launch.attend(problem.query, problem.heads, problem.value_size, problem.scaling, held, dtype, **more)


def among_nan(x: Tensor, more: int = 3) -> Tensor:
    """The same entries [H, N, D] as a view whose neighbours in memory are NaN."""
    wide = torch.full((x.shape[0], x.shape[1] + 2 * more, x.shape[2]), math.nan, dtype=x.dtype)
    view = wide[:, more:-more]
    view.copy_(x)
    return view


@few_examples
@given(problem=problems(longest=(1, 3, 31, 130)))
def test_every_kind_is_the_definition(short_runs, problem: Problem):
    agree(run(replace(problem, query=problem.query.float())), defined(problem), 2e-5)


@few_examples
@given(problem=problems(kinds=(17, 16), longest=(1, 31, 130)))
def test_products_of_16_bits_are_as_near_as_16_bits_are(problem: Problem):
    agree(run(problem), defined(problem), 2e-2)


@pytest.mark.parametrize("group", [7, 20, 64])
@pytest.mark.parametrize("kind", [8, 4, 2])
def test_groups_of_any_length(kind: int, group: int):
    problem = made(kind, 2, 2, 2, (70, 41), 24, 40, 5, entry_group=group)
    agree(run(problem), defined(problem), 2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spread", [1e-4, 30.0])
def test_extreme_scales_stay_finite_and_right(kind: int, spread: float):
    problem = made(kind, 2, 2, 2, (100, 100), 64, 64, 5, spread=spread)
    agree(run(replace(problem, query=problem.query.float())), defined(problem), 1e-4)


@pytest.mark.parametrize("window", [None, 1, 5, 60])
@pytest.mark.parametrize("new", [1, 7, 40])
def test_a_tail_shows_each_token_itself_and_what_came_before(short_runs, window: int | None, new: int):
    problem = made(32, 2, 2, new, (110, 110), 32, 24, 3)
    keys, values = (among_nan(torch.stack(x)) for x in zip(*problem.held, strict=True))
    part = launch.tail_part(keys, values, first_token=0, tokens=new, window=window)
    q, k = torch.arange(110 - new, 110)[:, None], torch.arange(110)[None]
    visible = (k <= q) & (k > q - (window or 1000))
    agree(run(problem, part), defined(problem, visible), 2e-5)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", [32, 17, 8, 4, 2])
def test_gathered_entries_and_their_weights(short_runs, kind: int, weighted: bool):
    problem = made(kind, 3, 2, 2, (120, 80, 9), 64, 32, 7, query_dtype=torch.float32)
    chosen = [torch.randperm(120)[:37].sort().values, torch.randperm(80)[:70], torch.arange(0)]
    weights = [torch.randn(its.numel()) for its in chosen]
    part = launch.gathered(part_of(problem), chosen, weights if weighted else None)
    picked = replace(problem, held=[(k[i], v[i]) for (k, v), i in zip(problem.held, chosen, strict=True)])
    agree(run(problem, part), defined(picked, None, weights if weighted else None), 2e-5)


def test_parts_of_several_kinds_merge_into_one_softmax(short_runs):
    held = [
        made(kind, 2, 2, 3, (n, n), 64, 32, kind, query_dtype=torch.float32) for kind, n in ((32, 5), (17, 70), (4, 99))
    ]
    together = [tuple(torch.cat([p.held[h][i].float() for p in held]) for i in (0, 1)) for h in (0, 1)]
    whole = replace(held[0], held=together)  # type: ignore[arg-type]
    agree(run(whole, *map(part_of, held)), defined(whole), 2e-5)


def test_tokens_that_stand_apart_see_a_shared_part():
    problem = made(32, 2, 2, 5, (70, 70), 32, 32, 1)
    out, lse = run(problem, launch.seen_by(part_of(problem), torch.tensor([0, 3])))
    want = defined(problem)
    agree((out[[0, 3]], lse[:, [0, 3]]), (want[0][[0, 3]], want[1][:, [0, 3]]), 2e-5)
    assert bool((lse[:, [1, 2, 4]] == -math.inf).all()) and not out[[1, 2, 4]].any()


def test_sequences_of_a_batch_share_slots_and_keep_apart(short_runs):
    """Two sequences, each with entries of its own, then one extent for both: three parts in the room of two."""
    problem = made(32, 2, 2, 5, (70, 70), 16, 16, 1)
    mine, yours, shared = (made(32, 2, 2, 5, (n, n), 16, 16, n) for n in (70, 40, 33))
    whole = run(
        problem,
        launch.seen_by(part_of(mine), slice(0, 2)),
        launch.seen_by(part_of(yours), slice(2, 5)),
        part_of(shared),
    )
    for own, tokens in ((mine, slice(0, 2)), (yours, slice(2, 5))):
        held = [tuple(torch.cat(x) for x in zip(a, b, strict=True)) for a, b in zip(own.held, shared.held, strict=True)]
        want = defined(replace(problem, query=problem.query[:, tokens], held=held))  # type: ignore[arg-type]
        agree((whole[0][tokens], whole[1][:, tokens]), want, 2e-5)


@pytest.mark.parametrize("kind", [17, 4])
def test_a_sequence_is_answered_alike_alone_and_in_a_batch(short_runs, kind: int):
    problem = made(kind, 2, 2, 20, (90, 90), 64, 64, 13)
    alone = replace(problem, query=problem.query[:, 7:8])
    torch.testing.assert_close(run(problem)[0][7], run(alone)[0][0], atol=TOLERANCE[kind], rtol=TOLERANCE[kind])


@pytest.mark.parametrize("cap", [None, 2.0, 50.0])
def test_softcap_and_sinks(short_runs, cap: float | None):
    """However many runs there are, a sink takes its weight once: a column of scores that has no value."""
    problem = made(32, 2, 2, 3, (70, 40), 16, 16, 4, spread=3.0)
    sinks = torch.tensor([-1.0, 0.5, 3.0, -math.inf])
    problem = replace(problem, scaling=Scaling(problem.scaling, softcap=cap, sinks=sinks))
    out, lse = run(problem, whole=True)
    for q in range(4):
        keys, values = (x.double() for x in problem.held[q // 2])
        scores = problem.query[q].double() @ keys.T * problem.scaling
        scores = scores if cap is None else cap * (scores / cap).tanh()
        scores = torch.cat([scores, sinks[q].double().expand(3, 1)], -1)
        torch.testing.assert_close(lse[q].double(), scores.logsumexp(-1), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(out[:, q].double(), scores.softmax(-1)[:, :-1] @ values, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.logaddexp(run(problem)[1], sinks[:, None].expand(4, 3)), lse)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_results_come_in_the_dtype_asked_for(dtype: torch.dtype):
    problem = made(32, 2, 2, 3, (64, 64), 32, 32, 2)
    got, want = run(problem, dtype=dtype)[0], run(problem)[0]
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), want, atol=0, rtol=torch.finfo(dtype).eps)


@settings(few_examples, max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 40), st.sampled_from([1, 5, 16, 24])),
    entries=st.sampled_from([0, 1, 17, 100]),
    masking=st.sampled_from(["none", "causal", "shared", "per head"]),
    seed=st.integers(0, 2**31),
)
def test_a_dense_piece_is_attended_to_as_defined(short_runs, forced, shape, entries: int, masking: str, seed: int):
    from farspan.attention import partial_attention

    (heads, group, tokens, size), g = shape, torch.Generator().manual_seed(seed)
    entries = tokens if masking == "causal" else entries
    query, keys, values = (torch.randn(heads, *s, size, generator=g) for s in ((group, tokens), (entries,), (entries,)))
    visible = None
    if masking in ("shared", "per head"):
        visible = torch.rand(*([heads] if masking == "per head" else []), tokens, entries, generator=g) < 0.4
        visible[..., seed % tokens, :] = False
    got = partial_attention(query, among_nan(keys), among_nan(values), 0.3, visible, causal=masking == "causal")
    lower = torch.ones(tokens, tokens).tril().bool() if masking == "causal" else visible
    want = naive.attend_piece(query, keys, values, 0.3, lower)
    assert torch.equal(got[1] == -math.inf, want[1] == -math.inf)
    for mine, true in zip(got, want, strict=True):
        torch.testing.assert_close(mine, true, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_packed_batch_is_its_sequences_alone(forced, kind: torch.dtype):
    g = torch.Generator().manual_seed(4)
    lengths, heads, group, size = (3, 70, 1), 2, 2, 16  # one goes by pieces, the others in one call
    caches = []
    for length in lengths:
        layer = LayerCache(index=0)
        keys, values = (torch.randn(heads, 100, size, generator=g).to(kind) for _ in range(2))
        layer.tail.append(keys, values, 0)
        layer.seal_tail(None, count=100 - length)
        caches.append(layer)
    query = torch.randn(heads * group, sum(lengths), size, generator=g).to(kind)
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    rows = [Rows(layer, start, length) for layer, start, length in zip(caches, starts, lengths, strict=True)]
    together = attend(query, rows, 0.2)
    for row in rows:
        alone = attend(query[:, row.start : row.start + row.length], [row._replace(start=0)], 0.2)
        tolerance = 1e-6 if kind == torch.float32 else 8e-3
        torch.testing.assert_close(together[row.start :][: row.length], alone, atol=tolerance, rtol=tolerance)
