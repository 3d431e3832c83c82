"""The C++ kernels are the definition: every kind of entry, instruction set, mask and cut, on poisoned memory."""

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor

from farspan import library as library_module
from farspan.attention import Rows, attend, native
from farspan.attention.scaling import Scaling
from farspan.cache import GroupBlock, LayerCache
from tests.attention.problems import Problem, agree, asked, defined, made, problems

LIBRARY = native.library()[0]
pytestmark = [
    pytest.mark.skipif(LIBRARY is None, reason=native.library()[1]),
    pytest.mark.usefixtures("poisoned"),
]
SETS = LIBRARY.fs_instruction_sets().decode().split() if LIBRARY is not None else []


@pytest.fixture(params=SETS)
def instructions(request):
    """Each instruction set that this machine has."""
    assert LIBRARY is not None and not LIBRARY.fs_force(request.param.encode())
    yield request.param
    LIBRARY.fs_force(None)


@pytest.fixture(params=["lent", "own"])
def threads(request):
    """Those of torch's OpenMP runtime, as where nothing is said, or the library's own."""
    assert LIBRARY is not None
    lent = library_module.team()
    if request.param == "lent" and lent is None:
        pytest.skip("torch's OpenMP runtime lends no threads here")
    LIBRARY.fs_borrow(lent if request.param == "lent" else None)
    yield request.param
    LIBRARY.fs_borrow(lent)


def part_of(problem: Problem) -> native.Part:
    known = native.part_of(problem.extent)
    assert known is not None
    return native.seen_by(known, slice(0, problem.query.shape[1]))


def run(problem: Problem, *parts: native.Part, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    its = parts or [part_of(problem)]
    return native.attend(problem.query, problem.heads, problem.value_size, problem.scaling, its, dtype)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
@given(problem=problems())
def test_every_kind_is_the_definition(instructions, problem: Problem):
    problem = Problem(problem.query.float(), problem.extent, problem.held, problem.scaling)
    agree(run(problem), defined(problem), 2e-5)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
@given(problem=problems(kinds=(8, 4, 2)))
def test_integer_products_stay_within_a_thousandth(instructions, problem: Problem):
    problem = Problem(problem.query.bfloat16(), problem.extent, problem.held, problem.scaling)
    agree(run(problem), defined(problem), 1e-3)


@pytest.mark.parametrize("kind", [8, 4, 2])
@pytest.mark.parametrize(("group", "tokens"), [(1, 1), (4, 1), (4, 4)])  # rows of one, half and two blocks
def test_integer_products_know_every_head_size(instructions, kind: int, group: int, tokens: int):
    for size in (8, 16, 24, 40, 48, 72, 80, 96, 112, 128, 144, 160, 192, 208, 256, 496, 512):
        problem = made(kind, 2, group, tokens, (70, 300), size, size, 5)
        problem = Problem(problem.query.bfloat16(), problem.extent, problem.held, problem.scaling)
        agree(run(problem), defined(problem), 1e-3)


@pytest.mark.parametrize("kind", [8, 4, 2])
@pytest.mark.parametrize(("entry_group", "value_group"), [(16, 16), (32, 32), (64, 64), (128, 128), (64, 32), (8, 64)])
def test_integer_products_know_every_group(instructions, kind: int, entry_group: int, value_group: int):
    for size, tokens, group in ((64, 1, 4), (128, 1, 4), (128, 3, 5), (256, 1, 1)):  # rows of one block and of two
        counts = (333, 128, 71)
        problem = made(
            *(kind, 3, group, tokens, counts, size, size, 6), entry_group=entry_group, value_group=value_group
        )
        problem = Problem(problem.query.bfloat16(), problem.extent, problem.held, problem.scaling)
        agree(run(problem), defined(problem), 1e-3)


@pytest.mark.parametrize("kind", [8, 4, 2])
@pytest.mark.parametrize("factor", [3.0, 30.0, 300.0, 9000.0])
def test_few_large_keys_leave_the_others_their_digits(instructions, kind: int, factor: float):
    g = torch.Generator().manual_seed(4)
    base, keys, values = torch.randn(128, generator=g), *torch.randn(2, 500, 128, generator=g)
    query = (base + 0.3 * torch.randn(8, 1, 128, generator=g)).bfloat16()
    keys[32:64] = factor * (0.3 * keys[32:64] - base)  # a group whose scales are larger, and which gets no weight
    problem = asked(query, GroupBlock.pack(keys, values, (500,), 32, bits=kind, value_group=32), (500,))
    agree(run(problem), defined(problem), 1e-3)


@pytest.mark.parametrize("kind", [32, 17, 8, 4, 2])
@pytest.mark.parametrize("spread", [1e-4, 30.0])
def test_extreme_scales_stay_finite_and_right(instructions, kind: int, spread: float):
    problem = made(kind, 2, 4, 2, (300, 300), 64, 64, 5, spread=spread)
    agree(run(problem), defined(problem), 1e-4)


@pytest.mark.parametrize("window", [0, 1, 5, 200])
@pytest.mark.parametrize("new", [1, 7, 150])
def test_a_tail_shows_each_token_itself_and_what_came_before(instructions, window: int, new: int):
    problem = made(32, 2, 2, new, (300, 300), 32, 32, 3)
    keys, values = (torch.stack(x) for x in zip(*problem.held, strict=True))
    part = native.tail_part(keys, values, first_token=0, tokens=new, window=window or None)
    q, k = torch.arange(300 - new, 300)[:, None], torch.arange(300)[None]
    visible = (k <= q) & (k > q - (window or 1000))
    agree(run(problem, part), defined(problem, visible), 2e-5)


@pytest.mark.parametrize("kind", [32, 17, 8, 4, 2])
def test_gathered_entries_and_their_weights(instructions, kind: int):
    problem = made(kind, 2, 3, 2, (400, 250), 64, 64, 7, query_dtype=torch.float32)
    chosen = [torch.randperm(400)[:37].sort().values, torch.randperm(250)[:150].sort().values]
    weights = [torch.randn(37), torch.randn(150)]
    part = part_of(problem)
    gathered, offsets, logs = torch.cat(chosen).int(), torch.tensor([0, 37, 187]), torch.cat(weights)
    part.gather, part.gather_offsets, part.log_weights = gathered.data_ptr(), offsets.data_ptr(), logs.data_ptr()
    held = [(k[i], v[i]) for (k, v), i in zip(problem.held, chosen, strict=True)]
    picked = Problem(problem.query, problem.extent, held, problem.scaling)
    agree(run(problem, part), defined(picked, None, weights), 2e-5)


def test_parts_of_several_kinds_merge_into_one_softmax(instructions):
    parts = [
        made(kind, 2, 2, 3, (n, n), 64, 32, kind, query_dtype=torch.float32)
        for kind, n in ((32, 5), (17, 200), (4, 99))
    ]
    query = parts[0].query
    together = [tuple(torch.cat([p.held[h][i].float() for p in parts]) for i in (0, 1)) for h in (0, 1)]
    whole = Problem(query, parts[0].extent, together, parts[0].scaling)  # type: ignore[arg-type]
    agree(run(whole, *(part_of(p) for p in parts)), defined(whole), 2e-5)


def test_tokens_that_stand_apart_see_a_shared_part(instructions):
    problem = made(32, 2, 2, 5, (70, 70), 32, 32, 1)
    part = native.seen_by(part_of(problem), torch.tensor([0, 3]))
    out, lse = run(problem, part)
    want = defined(problem)
    agree((out[[0, 3]], lse[:, [0, 3]]), (want[0][[0, 3]], want[1][:, [0, 3]]), 2e-5)
    assert bool((lse[:, [1, 2, 4]] == -math.inf).all()) and not out[[1, 2, 4]].any()


@pytest.mark.parametrize("kind", [17, 8, 2])
def test_threads_change_nothing(instructions, threads, kind: int):
    problem = made(kind, 3, 4, 2, (5000, 17, 2500), 64, 64, 11)
    one = run(problem)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        three = run(problem)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one[0], three[0]) and torch.equal(one[1], three[1])


@pytest.mark.parametrize("kind", [17, 8, 4])
def test_a_sequence_is_answered_alike_alone_and_in_a_batch(instructions, kind: int):
    problem = made(kind, 2, 2, 40, (900, 900), 64, 64, 13)
    alone = Problem(problem.query[:, 7:8], problem.extent, problem.held, problem.scaling)
    torch.testing.assert_close(run(problem)[0][7], run(alone)[0][0], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_results_are_rounded_as_torch_rounds(instructions, dtype: torch.dtype):
    problem = made(32, 2, 2, 3, (64, 64), 32, 32, 2)
    assert torch.equal(run(problem, dtype=dtype)[0], run(problem)[0].to(dtype))


def test_a_forked_process_has_threads_of_its_own(threads):
    problem = made(32, 2, 2, 1, (5000, 5000), 32, 32, 2)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        want = run(problem)[0]  # starts the threads, which a fork does not copy
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            os._exit(0 if torch.equal(run(problem)[0], want) else 1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        torch.set_num_threads(before)


STARTED = """
import os, sys, torch
from farspan import library
from tests.attention.problems import made
from tests.attention.test_native import run
torch.set_num_threads(2)
torch.ones(4_000_000).sum()  # torch has its threads now
if sys.argv[1] == "own":
    library.library()[0].fs_borrow(None)
before = len(os.listdir("/proc/self/task"))
run(made(32, 2, 2, 1, (5000, 5000), 32, 32, 2))
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs a system that lists threads as files")
def test_threads_that_are_lent_are_used_and_no_others_started(threads):
    told = subprocess.run([sys.executable, "-c", STARTED, threads], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == {"lent": "0", "own": "1"}[threads]


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_packed_batch_is_its_sequences_alone_to_the_bit(kind: torch.dtype):
    g = torch.Generator().manual_seed(4)
    lengths, heads, group, size = (3, 200, 1, 64), 2, 2, 32
    caches = []
    for length in lengths:
        layer = LayerCache(index=0)
        keys, values = (torch.randn(heads, 300, size, generator=g).to(kind) for _ in range(2))
        layer.tail.append(keys, values, 0)
        layer.seal_tail(None, count=300 - length)
        caches.append(layer)
    query = torch.randn(heads * group, sum(lengths), size, generator=g).to(kind)
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    rows = [Rows(layer, start, length) for layer, start, length in zip(caches, starts, lengths, strict=True)]
    together = attend(query, rows, 0.2)
    for row in rows:
        alone = attend(query[:, row.start : row.start + row.length], [row._replace(start=0)], 0.2)
        assert torch.equal(together[row.start : row.start + row.length], alone)


@pytest.mark.parametrize("kind", [32, 17, 8])
def test_scores_are_capped_and_sinks_take_weight_once(instructions: str, kind: int):
    problem = made(kind, 2, 3, 2, (70, 150), 24, 16, 5, spread=6.0)
    cap, sinks = 4.0, torch.tensor([0.5, -3.0, 2.0, -math.inf, 9.0, 0.0])
    parts, scaling = [part_of(problem)], Scaling(problem.scaling, softcap=cap, sinks=sinks)
    want, lse = torch.zeros(2, 6, 16, dtype=torch.float64), torch.zeros(6, 2, dtype=torch.float64)
    for head in range(6):
        keys, values = (x.double() for x in problem.held[head // 3])
        scores = cap * torch.tanh(problem.query[head].double() @ keys.T * problem.scaling / cap)
        lse[head] = torch.logaddexp(scores.logsumexp(-1), sinks[head].double())
        want[:, head] = (scores - lse[head, :, None]).exp() @ values
    got = native.attend(problem.query, 2, 16, scaling, parts, torch.float32, whole=True)
    torch.testing.assert_close(got[0].double(), want, atol=1e-3 if kind == 8 else 1e-5, rtol=1e-3)
    torch.testing.assert_close(got[1].double(), lse, atol=2e-3 if kind == 8 else 1e-5, rtol=1e-3)
    partial = native.attend(problem.query, 2, 16, scaling, parts, torch.float32)[1].double()
    torch.testing.assert_close(torch.logaddexp(partial, sinks.double()[:, None]), got[1].double())
