"""Many new tokens of bfloat16 attend in one call of the C++ kernels, to all that their sequences hold, as defined."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from farspan.attention import Pattern, Rows, Sight, attend, backend, kernels, native, sighted
from farspan.attention.scaling import Scaling
from farspan.cache import DenseBlock, Extent, GroupBlock, LayerCache
from tests.attention.problems import asked, defined
from tests.attention.sights import RUNS, dense, layer_of

LIBRARY = native.library()[0]
pytestmark = [
    pytest.mark.skipif(LIBRARY is None or not LIBRARY.fs_sees(), reason="no C++ kernels, or no AMX for bfloat16"),
    pytest.mark.usefixtures("poisoned"),
]
ROUNDING = 2**-8 + 2**-8  # to bfloat16, at most: of every weight, and of the result
HERE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
MODULE = sys.modules[attend.__module__]


@pytest.fixture(autouse=True)
def one_call(monkeypatch):
    """Whatever route is forced from outside; torch is asked nothing unless a test says so."""
    monkeypatch.setenv("FARSPAN_KERNELS", "native")
    monkeypatch.setattr(MODULE, "partial_attention", None)
    backend.cache_clear()
    yield
    backend.cache_clear()


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def near(got: Tensor, want: tuple[Tensor, Tensor], roundings: int = 1) -> None:
    assert got.dtype == torch.bfloat16
    assert bool(((got.double() - want[0]).abs() <= roundings * ROUNDING * want[1] + 1e-6).all())


def wanted(query: Tensor, layer: LayerCache, tokens: int, scaling: float) -> tuple[Tensor, Tensor]:
    return dense(query, layer, tokens, Pattern(heads=(Sight(window=layer.window or 10**6),)), scaling)


def check(layer: LayerCache, tokens: int, group: int, scaling: float, roundings: int = 1) -> None:
    heads, _, size = layer.tail.keys.shape
    query = drawn(tokens, heads * group, tokens, size)
    near(attend(query, [Rows(layer, 0, tokens)], scaling), wanted(query, layer, tokens, scaling), roundings)


@HERE
@given(st.data())
def test_whatever_is_held(data):
    heads, group = data.draw(st.sampled_from([(1, 1), (2, 1), (1, 3), (2, 4)]))
    sizes, runs = data.draw(st.sampled_from([(16, 16), (40, 24), (64, 96)])), data.draw(RUNS)
    tokens = data.draw(st.integers(kernels.FEWER_ROWS // group + 1, 150))
    layer = layer_of(data.draw(st.integers(0, 99)), heads, runs, tokens, torch.bfloat16, sizes)
    sinks = 3 * torch.randn(heads * group) if data.draw(st.booleans()) else None
    check(layer, tokens, group, Scaling(0.3, softcap=data.draw(st.sampled_from([None, 2.0, 30.0])), sinks=sinks))


@pytest.mark.parametrize("window", [1, 7, 40, 1000])
def test_a_layer_with_a_window_of_its_own_sees_no_further(window: int):
    layer = layer_of(0, 2, [], 160, torch.bfloat16)
    layer.window = window
    check(layer, 90, 2, 0.3)


@pytest.mark.parametrize("counts", [(700, 700), (1, 33), (0, 530), (95, 0)])
@pytest.mark.parametrize(("bits", "group", "value_group"), [(8, 32, None), (4, 64, 32), (2, 16, 16), (8, 128, 24)])
def test_codes_are_read_back_as_they_are_stored(bits, group, value_group, counts):
    keys, values = drawn(1, sum(counts), 40), drawn(2, sum(counts), 72)
    block = GroupBlock.pack(keys, values, counts, group, bits=bits, value_group=value_group)
    problem = asked(drawn(3, 2 * 3, 30, 40), block, counts)
    out, lse = torch.empty(30, 2, 3, 72, dtype=torch.bfloat16), torch.empty(2, 3, 30)
    part = sighted.part(problem.extent)
    assert part is not None
    query, empty = problem.query.unflatten(0, (2, 3)), Sight(window=1)
    sighted.attend(query, 999, [], empty, problem.scaling, out, parts=[part], lse=lse)
    want, sums = defined(problem)
    size = torch.stack([values.double().abs().amax()] * 2).max()
    torch.testing.assert_close(out.flatten(1, 2).double(), want, atol=float(ROUNDING * size / 2), rtol=0)
    torch.testing.assert_close(lse.flatten(0, 1).double(), sums, atol=1e-5, rtol=1e-5)
    if not all(counts):
        nothing = out[:, counts.index(0)]
        assert bool((nothing == 0).all()), "a head that sees nothing puts nothing out"


@pytest.mark.parametrize("size", [8, 24, 40, 64, 128])
@pytest.mark.parametrize(
    ("bits", "group", "value_group"), [(8, 32, None), (8, 64, 16), (4, 64, 32), (4, 32, 8), (2, 16, 48)]
)
def test_codes_attend_to_the_bit_as_what_they_unpack_to(bits, group, value_group, size):
    counts = (0, 701, 33)
    block = GroupBlock.pack(drawn(1, 734, size), drawn(2, 734, size), counts, group, bits=bits, value_group=value_group)
    got = []
    for its in (block, DenseBlock(*block.unpack(0, 734))):
        query, part = drawn(3, 3, 2, 20, size), sighted.part(asked(drawn(3, 6, 20, size), its, counts).extent)
        out, lse = torch.empty(20, 3, 2, size, dtype=torch.bfloat16), torch.empty(3, 2, 20)
        assert part is not None
        sighted.attend(query, 999, [], Sight(window=1), 0.2, out, parts=[part], lse=lse)
        got.append((out, lse))
    assert torch.equal(got[0][0], got[1][0]) and torch.equal(got[0][1], got[1][1])


@pytest.mark.parametrize("threads", [1, 2, 9])
def test_a_sequence_among_others_is_what_it_is_alone(threads: int):
    layers = [layer_of(seed, 2, [("int8", 60), ("dense", 40)], 30 + seed, torch.bfloat16) for seed in range(3)]
    layers.append(layers[0].fork())
    rows, start = [], 0
    for layer, new in zip(layers, (30, 31, 5, 20), strict=True):
        rows.append(Rows(layer, start, new))
        start += new
    query, before = drawn(0, 6, start, 16), torch.get_num_threads()
    alone = [attend(query[:, r.start : r.start + r.length], [r._replace(start=0)], 0.3) for r in rows]
    torch.set_num_threads(threads)
    together = attend(query, rows, 0.3)
    torch.set_num_threads(before)
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("sinks", [None, torch.tensor([-1.0, 4.0, 0.5, 2.0])])
def test_what_the_kernel_does_not_take_is_merged_and_sinks_take_their_weight_once(sinks, monkeypatch):
    layer = layer_of(3, 2, [("dense", 50), ("ragged", 40), ("int8", 30)], 60, torch.bfloat16)
    left, real = layer.extents[1], sighted.part
    monkeypatch.setattr(sighted, "part", lambda extent: None if extent is left else real(extent))
    monkeypatch.setattr(MODULE, "partial_attention", kernels.partial_attention)
    check(layer, 60, 2, Scaling(0.3, sinks=sinks), roundings=3)


@pytest.mark.parametrize(("causal", "tokens", "entries"), [(True, 70, 70), (False, 70, 200), (False, 9, 33)])
def test_a_piece_is_attended_to_with_its_log_sum_exp(causal: bool, tokens: int, entries: int, monkeypatch):
    monkeypatch.setattr(kernels.torch_cpu, "attend_piece", None)
    query, keys, values = drawn(0, 2, 4, tokens, 24), drawn(1, 2, entries, 24), drawn(2, 2, entries, 40)
    out, lse = kernels.partial_attention(query, keys, values, Scaling(0.3, sinks=torch.ones(8)), None, causal=causal)
    scores = torch.einsum("hgtd,hnd->hgtn", query.double(), keys.double()) * 0.3
    if causal:
        scores = scores.masked_fill(~torch.ones(tokens, tokens).tril().bool(), -math.inf)
    want, size = (torch.einsum("hgtn,hnd->hgtd", scores.softmax(-1), v.double()) for v in (values, values.abs()))
    near(out, (want, size))
    torch.testing.assert_close(lse.double(), scores.logsumexp(-1), atol=1e-5, rtol=1e-5)


def test_few_rows_and_other_numbers_go_another_way(monkeypatch):
    def ways(tokens: int, dtype: torch.dtype, asking: torch.dtype | None = None) -> bool:
        keys, query = torch.zeros(2, 9, 16, dtype=dtype), torch.zeros(8, tokens, 16, dtype=asking or dtype)
        return kernels.many_rows(query, tokens, keys, keys, 0.3)

    assert ways(5, torch.bfloat16) and ways(1000, torch.bfloat16)
    assert not ways(4, torch.bfloat16) and not ways(5, torch.float32) and not ways(5, torch.float16)
    assert ways(33, torch.bfloat16, torch.float32) and not ways(32, torch.bfloat16, torch.float32)
    monkeypatch.setenv("FARSPAN_KERNELS", "torch")
    backend.cache_clear()
    assert not ways(1000, torch.bfloat16)


def test_other_dense_numbers_are_left_to_torch():
    def extent(dtype: torch.dtype) -> Extent:
        return Extent.dense(torch.zeros(1, 4, 8, dtype=dtype), torch.zeros(1, 4, 8, dtype=dtype), torch.arange(4).int())

    assert sighted.part(extent(torch.bfloat16)) is not None
    assert sighted.part(extent(torch.float32)) is None and sighted.part(extent(torch.float16)) is None
