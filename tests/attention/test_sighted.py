"""One call of the C++ kernels under a sight is the definition: sizes, groups, caps, sinks, strides, threads, memory."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from farspan.attention import Pattern, Rows, Sight, attend, backend, patterned, sighted
from farspan.attention.native import library
from farspan.attention.scaling import Scaling
from farspan.attention.sighted import Held
from tests.attention.sights import columns, dense, layer_of, sights

LIBRARY = library()[0]
pytestmark = [
    pytest.mark.skipif(LIBRARY is None or not LIBRARY.fs_sees(), reason="no C++ kernels, or no AMX for bfloat16"),
    pytest.mark.usefixtures("poisoned"),
]
ROUNDING = 2**-8 + 2**-8  # to bfloat16, at most: of every weight, and of the result
HERE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


def check(
    tokens: int,
    older: int,
    heads: int,
    group: int,
    sizes: tuple[int, int],
    sight: Sight,
    *,
    seed: int = 0,
    cap: float | None = None,
    sinks: bool = False,
    spread: float = 1.0,
) -> None:
    """One softmax of bfloat16 numbers in float64, to within what rounding of weights and of the result explains."""
    layer = layer_of(seed, heads, [("dense", older)] if older else [], tokens, torch.bfloat16, sizes)
    g = torch.Generator().manual_seed(seed + 1)
    query = (spread * torch.randn(heads * group, tokens, sizes[0], generator=g)).bfloat16()
    logits = 3 * torch.randn(heads * group, generator=g) if sinks else None
    scaling = Scaling(sizes[0] ** -0.5, softcap=cap, sinks=logits)
    pattern = Pattern(heads=(sight,))
    want, size = dense(query, layer, tokens, pattern, scaling)
    got = torch.full(want.shape, math.nan, dtype=torch.bfloat16)
    patterned.attend(query, older, layer, pattern, scaling, got)
    error = (got.double() - want).abs()
    assert bool((error <= ROUNDING * size + 1e-6).all()), float((error - ROUNDING * size).max())


@pytest.fixture(autouse=True)
def never_sliced(monkeypatch):
    """Whatever route is forced from outside."""
    monkeypatch.setattr(patterned, "_sliced", None)
    monkeypatch.setenv("FARSPAN_KERNELS", "native")
    backend.cache_clear()
    yield
    backend.cache_clear()


@pytest.mark.parametrize("size", [8, 16, 24, 40, 64, 80, 96, 112, 128, 192, 200, 256, 512])
def test_every_head_size(size: int):
    for sizes in ((size, size), (size, 72), (64, size)):
        check(40, 50, 2, 2, sizes, Sight(window=30, sinks=3))


@pytest.mark.parametrize("group", [1, 2, 3, 4, 5, 7, 8, 16, 71])  # rows of a token, also cut between its heads
def test_every_group(group: int):
    check(70, 40, 1, group, (32, 32), Sight(window=33, sinks=2))


@pytest.mark.parametrize("tokens", [1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 300])
def test_every_number_of_tokens(tokens: int):
    check(tokens, 37, 2, 1, (32, 32), Sight(window=40, sinks=1))


@HERE
@given(st.data())
def test_whatever_is_seen(data):
    tokens, older = data.draw(st.integers(1, 150)), data.draw(st.integers(0, 150))
    heads, group = data.draw(st.sampled_from([(1, 1), (2, 1), (1, 3), (2, 4)]))
    sizes = data.draw(st.sampled_from([(16, 16), (40, 24), (64, 96)]))
    cap, sinks = data.draw(st.sampled_from([None, 2.0, 30.0])), data.draw(st.booleans())
    seed = data.draw(st.integers(0, 99))
    check(tokens, older, heads, group, sizes, data.draw(sights()), seed=seed, cap=cap, sinks=sinks)


def test_windows_longer_than_what_is_laid_out_at_once():
    check(150, 1500, 1, 2, (32, 32), Sight(window=1100, sinks=40, bands=((1200, 1300),)))


def test_everything_seen_is_everything():
    check(200, 400, 1, 2, (64, 64), Sight(window=10_000))


@pytest.mark.parametrize("spread", [1e-3, 30.0, 1000.0])
@pytest.mark.parametrize("cap", [None, 5.0])
def test_scores_far_apart_leave_no_weight_and_no_nan(spread: float, cap: float | None):
    check(70, 130, 1, 2, (64, 64), Sight(window=40, sinks=9), spread=spread, cap=cap, sinks=True)


def given_by(held: list[Held], query: Tensor, first: int, sight: Sight, threads: int = 1) -> Tensor:
    heads, group, tokens, _ = query.shape
    out = torch.empty(tokens, heads, group, held[0].values.shape[-1], dtype=torch.bfloat16)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    sighted.attend(query, first, held, sight, 0.2, out)
    torch.set_num_threads(before)
    return out


def agree(got: Tensor, held: Held, query: Tensor, first: int, sight: Sight) -> None:
    """With all entries in one matrix."""
    seen = sight.sees(torch.arange(first, first + query.shape[2]), held.positions)
    scores = torch.einsum("hgtd,hnd->hgtn", query.double(), held.keys.double()) * 0.2
    weights = scores.masked_fill(~seen, -math.inf).softmax(-1)
    want, size = (torch.einsum("hgtn,hnd->thgd", weights, v.double()) for v in (held.values, held.values.abs()))
    assert bool(((got.double() - want).abs() <= ROUNDING * size + 1e-6).all())


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).bfloat16()


def test_threads_and_heads_beside_it_change_no_bit():
    query, keys, values = drawn(3, 2, 700, 48), drawn(3, 1000, 48), drawn(3, 1000, 56)
    held, sight = [Held(keys, values, torch.arange(1000).int())], Sight(window=300, sinks=20)
    got = given_by(held, query, 300, sight)
    assert torch.equal(got, given_by(held, query, 300, sight, threads=2))
    assert torch.equal(got, given_by(held, query, 300, sight, threads=9))
    alone = given_by([Held(keys[1:2], values[1:2], held[0].positions)], query[1:2], 300, sight)
    torch.testing.assert_close(alone, got[:, 1:2], atol=0, rtol=2**-6)  # cut into other items where there are others


def test_entries_may_lie_anywhere():
    """Runs of keys with gaps between their positions, and queries, keys and values that others lie between."""
    at = columns(0, 1, 2, 9, 40, 41, 42, 43, 44, 45, 46, 47, 50, 51, 60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70)
    room = torch.full((2, 3, 75, 80), math.nan, dtype=torch.bfloat16)
    for part, x in zip(room, (keys := drawn(3, 25, 40), values := drawn(3, 25, 40)), strict=True):
        part[:, 25:50, 8:48] = x
    wide = drawn(10, 3, 2, 50)
    query, (far_keys, far_values) = wide[..., :40].permute(1, 2, 0, 3), room[:, :, 25:50, 8:48]
    sight = Sight(window=12, sinks=2, columns=columns(9, 41))
    runs = [Held(far_keys[:, a:b], far_values[:, a:b], at[a:b]) for a, b in ((0, 4), (4, 5), (5, 25))]
    agree(given_by(runs, query, 61, sight), Held(keys, values, at), query, 61, sight)


@pytest.mark.parametrize("sight", [Sight(window=33, sinks=1), Sight(window=150), Sight(window=3, sinks=150)])
def test_tiles_of_keys_and_rows_of_queries_begin_beside_each_other(sight: Sight):
    for first in range(40):
        query, keys, values = drawn(1, 1, 70, 16), drawn(1, first + 70, 16), drawn(1, first + 70, 16)
        held = Held(keys, values, torch.arange(first + 70).int())
        agree(given_by([held], query, first, sight), held, query, first, sight)


def test_a_nan_that_is_seen_is_said():
    keys = drawn(1, 40, 32)
    keys[0, 3] = math.nan
    got = given_by([Held(keys, drawn(1, 40, 32), torch.arange(40).int())], drawn(1, 1, 40, 32), 0, Sight(window=40))
    assert got[:3].isfinite().all() and got[3:].isnan().all()


def test_other_numbers_and_routes_go_another_way(monkeypatch):
    def held(dtype: torch.dtype) -> list[Held]:
        return [Held(torch.zeros(1, 4, 8, dtype=dtype), torch.zeros(1, 4, 8, dtype=dtype), torch.arange(4).int())]

    assert sighted.takes(held(torch.bfloat16), 1.0)
    assert not sighted.takes(held(torch.float32), 1.0)
    assert not sighted.takes(held(torch.float16), 1.0)
    assert not sighted.takes([*held(torch.bfloat16), *held(torch.float32)], 1.0)
    assert not sighted.takes(held(torch.bfloat16), -1.0)
    assert LIBRARY is not None
    LIBRARY.fs_force(b"avx512")
    assert not sighted.takes(held(torch.bfloat16), 1.0)
    LIBRARY.fs_force(None)
    monkeypatch.setenv("FARSPAN_KERNELS", "torch")
    backend.cache_clear()
    called = []
    monkeypatch.setattr(patterned, "_sliced", lambda *given: called.append(given))
    layer = layer_of(1, 1, [], 20, torch.bfloat16)
    attend(torch.zeros(1, 20, 16).bfloat16(), [Rows(layer, 0, 20, Pattern(heads=(Sight(window=3),)))], 0.3)
    backend.cache_clear()
    assert len(called) == 1


def test_what_memory_does_not_hold_is_an_error(monkeypatch):
    class Full:
        def fs_attend_sight(self, *_: object) -> int:
            return 1

    monkeypatch.setattr(sighted, "library", lambda: (Full(), ""))
    with pytest.raises(MemoryError, match="works in"):
        given_by([Held(drawn(1, 4, 8), drawn(1, 4, 8), torch.arange(4).int())], drawn(1, 1, 4, 8), 0, Sight(window=3))
