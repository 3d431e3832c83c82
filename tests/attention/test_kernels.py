"""Every route of `partial_attention` is the definition, on whatever shapes, masks and memory it meets."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from farspan.attention import Merger, backend, kernels, partial_attention, triton
from farspan.cache import Tail
from farspan.errors import OptionError

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}

pytestmark = pytest.mark.usefixtures("poisoned")


@pytest.fixture(params=[name for name in kernels.BACKENDS if name != "triton"])  # interpreted: test_triton.py, slowly
def route(request, monkeypatch):
    """Each route in turn, forced as a person would force it."""
    monkeypatch.setenv("FARSPAN_KERNELS", request.param)
    backend.cache_clear()
    yield request.param
    backend.cache_clear()


def defined(query: Tensor, keys: Tensor, values: Tensor, scaling: float, visible: Tensor | None):
    """softmax(scaling · q kᵀ) v and its log-sum-exp in float64, one query at a time."""
    H, G, T, _ = query.shape
    out = torch.zeros(H, G, T, values.shape[-1], dtype=torch.float64)
    lse = torch.full((H, G, T), -math.inf, dtype=torch.float64)
    for h in range(H):
        k, v = keys[h].double(), values[h].double()
        for t in range(T):
            sees = torch.ones(len(k), dtype=torch.bool)
            if visible is not None:
                sees = visible[t] if visible.ndim == 2 else visible[h, t]
            if not sees.any():
                continue
            scores = query[h, :, t].double() @ k[sees].T * scaling
            lse[h, :, t] = scores.logsumexp(-1)
            out[h, :, t] = scores.softmax(-1) @ v[sees]
    return out, lse


def agree(got, want, tolerance):
    (out, lse), (true_out, true_lse) = got, want
    assert lse.dtype == torch.float32
    assert torch.equal(lse == -math.inf, true_lse == -math.inf), "just the queries that see nothing say so"
    seen = true_lse > -math.inf
    torch.testing.assert_close(out.double(), true_out, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(lse.double()[seen], true_lse[seen], atol=tolerance * 5, rtol=tolerance)


def in_poison(x: Tensor, dim: int = 1, more: int = 5) -> Tensor:
    """The same numbers as a strided view whose neighbours in memory, before and behind, are NaN."""
    shape = list(x.shape)
    shape[dim] += 2 * more
    wide = torch.full(shape, math.nan, dtype=x.dtype)
    view = wide.narrow(dim, more, x.shape[dim])
    view.copy_(x)
    return view


@st.composite
def problems(draw):
    """-> (query, keys, values, scaling, visible, causal), seeded numbers in drawn shapes."""
    H, G = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    T, D = draw(st.integers(1, 70)), draw(st.sampled_from([1, 4, 5, 16, 20, 24, 64, 80]))
    masking = draw(st.sampled_from(["none", "causal", "shared", "per head"]))
    N = T if masking == "causal" else draw(st.integers(0, 200))
    dtype = draw(st.sampled_from(list(TOLERANCE)))
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    query, keys, values = (torch.randn(H, *shape, D, generator=g).to(dtype) for shape in ((G, T), (N,), (N,)))
    visible = None
    if masking in ("shared", "per head"):
        share = draw(st.sampled_from([0.0, 0.05, 0.5, 1.0]))
        shape = (T, N) if masking == "shared" else (H, T, N)
        visible = torch.rand(shape, generator=g) < share
        visible[..., draw(st.integers(0, T - 1)), :] = False
    return query, keys, values, D**-0.5, visible, masking == "causal"


per_example = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(problem=problems(), strided=st.booleans())
@per_example
def test_a_piece_is_attended_to_as_defined(route, problem, strided):
    query, keys, values, scaling, visible, causal = problem
    true_mask = torch.ones(query.shape[2], query.shape[2]).tril().bool() if causal else visible
    want = defined(query, keys, values, scaling, true_mask)
    if strided:
        query, keys, values = in_poison(query, 2), in_poison(keys), in_poison(values)
    got = partial_attention(query, keys, values, scaling, visible, causal=causal)
    agree(got, want, TOLERANCE[keys.dtype])


@pytest.mark.parametrize("T", [1, 3, 600])
def test_pieces_longer_than_the_kernels_own_blocks_are_attended_to_as_defined(route, T):
    g = torch.Generator().manual_seed(T)
    query, keys, values = (torch.randn(2, *s, 8, generator=g) for s in ((2, T), (1100,), (1100,)))
    visible = torch.zeros(T, 1100, dtype=torch.bool)
    visible[:, 700:] = torch.rand(T, 400, generator=g) < 0.3  # whole leading blocks are invisible
    for mask in (None, visible):
        agree(partial_attention(query, keys, values, 0.4, mask), defined(query, keys, values, 0.4, mask), 1e-5)


def test_a_long_chunk_is_causal(route):
    g = torch.Generator().manual_seed(0)
    query, keys, values = (torch.randn(1, *s, 8, generator=g) for s in ((2, 700), (700,), (700,)))
    lower = torch.ones(700, 700).tril().bool()
    got = partial_attention(query, keys, values, 0.4, None, causal=True)
    agree(got, defined(query, keys, values, 0.4, lower), 1e-5)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("masked", [False, True])
def test_logits_of_ten_thousand_neither_overflow_nor_vanish(route, sign, masked):
    g = torch.Generator().manual_seed(0)
    query = torch.full((2, 2, 5, 16), 25.0)
    keys = sign * 25.0 + torch.randn(2, 40, 16, generator=g) * 0.01
    values = torch.randn(2, 40, 16, generator=g)
    visible = torch.rand(5, 40, generator=g) < 0.5 if masked else None
    out, lse = partial_attention(query, keys, values, 1.0, visible)
    want, want_lse = defined(query, keys, values, 1.0, visible)
    assert want_lse.abs().min() > 9_000
    # a float32 logit of 1e4 is itself off by up to 1e-3, so weights are known to that relative precision
    torch.testing.assert_close(out.double(), want, atol=1e-2, rtol=0)
    torch.testing.assert_close(lse.double(), want_lse, atol=0, rtol=1e-6)


def test_values_may_have_another_size_than_keys(route):
    g = torch.Generator().manual_seed(0)
    query, keys = torch.randn(2, 2, 6, 16, generator=g), torch.randn(2, 9, 16, generator=g)
    values, visible = torch.randn(2, 9, 24, generator=g), torch.rand(6, 9, generator=g) < 0.5
    for mask in (None, visible):
        agree(partial_attention(query, keys, values, 0.3, mask), defined(query, keys, values, 0.3, mask), 1e-5)


def test_what_lies_beyond_the_end_of_a_tail_never_leaks(route):
    g = torch.Generator().manual_seed(0)
    keys, values = torch.randn(2, 2, 37, 16, generator=g)
    tail = Tail()
    tail.append(keys, values, 0, capacity=200)
    query = torch.randn(2, 3, 4, 16, generator=g)
    got = partial_attention(query, tail.keys, tail.values, 0.25, None)
    agree(got, defined(query, keys, values, 0.25, None), 1e-5)


@given(problem=problems(), cuts=st.lists(st.integers(0, 200), max_size=4))
@per_example
def test_any_partition_of_the_keys_gives_the_same_result_as_the_whole(route, problem, cuts):
    query, keys, values, scaling, visible, causal = problem
    T, N = query.shape[2], keys.shape[1]
    if causal:
        visible = torch.ones(T, T).tril().bool()
    merger = Merger(*query.shape[:3], values.shape[-1], query.device)
    edges = [0, *sorted(min(cut, N) for cut in cuts), N]
    for a, b in pairwise(edges):
        mask = None if visible is None else visible[..., a:b]
        part = partial_attention(query, keys[:, a:b], values[:, a:b], scaling, mask)
        merger.add(*part, slice(0, len(keys)), slice(0, T))
    want = defined(query, keys, values, scaling, visible)
    agree((merger.out, merger.lse), want, TOLERANCE[keys.dtype] * 2)


def test_parts_may_belong_to_some_heads_and_some_queries_only():
    g = torch.Generator().manual_seed(1)
    query, keys, values = (torch.randn(2, *s, 8, generator=g) for s in ((2, 6), (30,), (30,)))
    visible = torch.zeros(2, 6, 30, dtype=torch.bool)
    merger = Merger(2, 2, 6, 8, query.device)
    rows = torch.tensor([0, 3, 5])
    for heads, tokens, keys_seen in [
        (slice(0, 2), slice(0, 6), slice(0, 4)),
        (slice(1, 2), rows, slice(4, 20)),
        (slice(0, 1), slice(2, 4), slice(20, 30)),
    ]:
        part = partial_attention(
            query[heads][:, :, tokens], keys[heads, keys_seen], values[heads, keys_seen], 0.35, None
        )
        merger.add(*part, heads, tokens)
        view = visible[heads]
        for t in range(6)[tokens] if isinstance(tokens, slice) else tokens.tolist():
            view[:, t, keys_seen] = True
    agree((merger.out, merger.lse), defined(query, keys, values, 0.35, visible), 1e-5)


def test_the_threads_of_the_machine_do_not_change_the_result(route):
    g = torch.Generator().manual_seed(2)
    query, keys, values = (torch.randn(2, *s, 16, generator=g) for s in ((2, 64), (300,), (300,)))
    try:
        one = partial_attention(query, keys, values, 0.25, None)
        torch.set_num_threads(2)
        two = partial_attention(query, keys, values, 0.25, None)
    finally:
        torch.set_num_threads(1)
    agree(two, [x.double() for x in one], 1e-6)


def test_an_unknown_route_is_refused(monkeypatch):
    monkeypatch.setenv("FARSPAN_KERNELS", "cuda")
    backend.cache_clear()
    with pytest.raises(OptionError, match="naive, torch"):
        backend("cpu")
    backend.cache_clear()


@pytest.fixture
def fresh(monkeypatch):
    """Choices made anew, whatever kind is forced outside, and forgotten afterwards."""
    monkeypatch.delenv("FARSPAN_KERNELS", raising=False)
    backend.cache_clear()
    yield
    backend.cache_clear()


def found(name: str) -> object | None:
    return object() if name == "triton" else None


def test_a_gpu_gets_triton_where_it_is_installed(fresh, monkeypatch):
    monkeypatch.setattr(triton, "find_spec", found)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert backend("cuda").name == "triton" and "torch" in backend("cuda").rejected


def test_without_triton_a_gpu_is_told_what_to_install(fresh, monkeypatch, caplog):
    monkeypatch.setattr(triton, "find_spec", lambda name: None)
    with caplog.at_level("INFO", "farspan"):
        chosen = backend("cuda")
    assert chosen.name == "naive" and "pip install 'farspan[gpu]'" in chosen.rejected["triton"]
    assert "no triton: triton is not installed" in caplog.text


def test_a_gpu_too_old_for_triton_is_told_so(fresh, monkeypatch):
    monkeypatch.setattr(triton, "find_spec", found)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert "7.5 is below 8.0" in backend("cuda").rejected["triton"]


def test_a_cpu_never_goes_by_triton_unless_forced_to_interpret_it(fresh, monkeypatch):
    monkeypatch.setattr(triton, "find_spec", found)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert backend("cpu").name != "triton" and backend("mps").name == "naive"
    monkeypatch.setenv("FARSPAN_KERNELS", "triton")
    backend.cache_clear()
    assert backend("cpu").name == "triton"
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    backend.cache_clear()
    with pytest.raises(OptionError, match="TRITON_INTERPRET=1"):
        backend("cpu")
