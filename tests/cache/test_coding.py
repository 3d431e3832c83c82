"""Codes made in C++ and in torch are the same, bit for bit, and so is what they stand for."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from farspan.cache.coding import compiled, pack_keys, pack_values, unpack_keys, unpack_values
from farspan.errors import PlanDoesNotApply
from farspan.library import library

LIBRARY = library()[0]
pytestmark = pytest.mark.skipif(LIBRARY is None, reason=library()[1])
SETS = LIBRARY.fs_instruction_sets().decode().split() if LIBRARY is not None else []
TYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])


@pytest.fixture(params=SETS, scope="module")
def instructions(request: pytest.FixtureRequest):
    LIBRARY.fs_force(request.param.encode())
    yield request.param
    LIBRARY.fs_force(None)


def both(monkeypatch: pytest.MonkeyPatch, run):
    """What the library makes of it, and torch."""
    monkeypatch.delenv("FARSPAN_KERNELS", raising=False)
    assert compiled(torch.zeros(1, 1))
    ours = run()
    monkeypatch.setenv("FARSPAN_KERNELS", "torch")
    assert not compiled(torch.zeros(1, 1))
    return ours, run()


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


@st.composite
def numbers(draw: st.DrawFn, heads: int = 3):
    bits, size = draw(st.sampled_from([8, 4, 2])), 4 * draw(st.integers(1, 40))
    counts = draw(st.lists(st.integers(0, 150), min_size=1, max_size=heads))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    spread = 10 ** draw(st.floats(-9, 3))
    x = torch.randn(sum(counts), size, generator=generator) * spread + draw(st.sampled_from([0, spread, 30 * spread]))
    if draw(st.booleans()):
        x[:, ::3] = draw(st.sampled_from([0.0, 1.5 * spread]))  # constant channels
    return x.to(draw(TYPES)), counts, bits


@settings(max_examples=60, deadline=None)
@given(numbers(), st.sampled_from([32, 64, 128]), st.integers(0, 200), st.integers(0, 200))
def test_keys(instructions, given_numbers, group, start, stop):
    x, counts, bits = given_numbers
    with pytest.MonkeyPatch.context() as patch:
        ours, theirs = both(patch, lambda: pack_keys(x, counts, group, bits))
        assert all(map(same, ours, theirs))
        start, stop = sorted((min(start, counts[0]), min(stop, counts[0])))
        scales = slice(start // group, max(start // group + 1, -(-stop // group)))
        if counts[0] and start < stop:
            of_head = (ours[0][None, start:stop], ours[1][None, scales], ours[2][None, scales])
            one, other = both(patch, lambda: unpack_keys(*of_head, bits, group, x.dtype, skip=start % group))
            assert same(one, other)
            step = ours[1].float().max() * (0.51 if x.dtype is torch.float32 else 1)
            assert (one[0].float() - x[start:stop].float()).abs().max() <= step + x.float().abs().max() * 2e-2


@settings(max_examples=60, deadline=None)
@given(numbers(), st.sampled_from([16, 20, 32, 64, 400]))
def test_values(instructions, given_numbers, group):
    x, _, bits = given_numbers
    group = min(group, x.shape[-1])
    with pytest.MonkeyPatch.context() as patch:
        ours, theirs = both(patch, lambda: pack_values(x, group, bits))
        assert all(map(same, ours, theirs))
        one, other = both(patch, lambda: unpack_values(*ours, bits, group, x.dtype))
        assert same(one, other)
        two, _ = both(patch, lambda: unpack_values(*(t[None] for t in ours), bits, group, x.dtype))
        assert same(one, two[0])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30])
def test_what_float16_cannot_say_is_refused(instructions, bad):
    x = torch.randn(70, 32)
    x[65, 17] = bad
    for pack in (lambda: pack_keys(x, [70], 32, 4), lambda: pack_values(x, 32, 4)):
        with pytest.raises(PlanDoesNotApply, match="beyond what the float16 scales"):
            pack()


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_agree(instructions, threads, monkeypatch):
    x = torch.randn(3000, 64)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        (ours, theirs) = both(monkeypatch, lambda: pack_keys(x, [1000, 2000], 32, 4))
    finally:
        torch.set_num_threads(before)
    assert all(map(same, ours, theirs))
