"""Memory is really freed: peaks of whole processes, and bytes reported against bytes allocated."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import farspan
from farspan.context import Context
from farspan.testing import allocated_bytes
from tests.models import tiny, tiny_tokenizer
from tests.oracle.situations import KINDS, LONG, OTHER, QUESTIONS, pair

ROOT = Path(__file__).parents[2]
MiB = 1024**2
ENTRY = 2 * 4 * 32 * 4  # bytes of one token's keys and values in one layer of the measured model
HIDDEN = 256 * 4  # bytes of one token's hidden state

linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux's /proc")


def measured(plan: str, tokens: int, **environment: str) -> dict[str, float]:
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "tests/runtime/measured_read.py", plan, str(tokens)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "src:.", "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@linux
@pytest.mark.parametrize(
    "short, long", [(4096, 20480), pytest.param(16384, 65536, marks=pytest.mark.slow)], ids=["20k", "64k"]
)
def test_in_stream_order_a_fixed_budget_bounds_the_peak_whatever_the_length(short: int, long: int) -> None:
    small, large = measured("snapkv:512", short), measured("snapkv:512", long)
    assert large["seen"] > 3.9 * small["seen"]
    assert large["held"] == small["held"] == 512
    assert large["peak"] - small["peak"] <= 16 * MiB
    assert large["peak_bytes"] <= 1.05 * small["peak_bytes"], "the entries alone: budget and one chunk"


@linux
@pytest.mark.parametrize(
    "short, long", [(24576, 40960), pytest.param(16384, 65536, marks=pytest.mark.slow)], ids=["40k", "64k"]
)
def test_in_layerwise_order_the_peak_grows_by_one_layer_and_the_hidden_states(short: int, long: int) -> None:
    # glibc keeps what is freed in holes of its heap, up to 32 MiB of it, at random; mapped apart, nothing is kept.
    # Both texts fill a whole piece of the tokeniser, whose own memory would otherwise count as growth.
    own = {"MALLOC_MMAP_THRESHOLD_": "65536"}
    small, large = (measured("snapkv:512 | layerwise", tokens, **own) for tokens in (short, long))
    more = large["seen"] - small["seen"]
    grown = (large["peak"] - large["before"]) - (small["peak"] - small["before"])
    assert grown == pytest.approx(more * (ENTRY + HIDDEN), rel=0.1)
    assert large["peak_bytes"] - small["peak_bytes"] == pytest.approx(more * ENTRY, rel=0.01)


@pytest.mark.parametrize("plan", ["full", "snapkv:40(window=8) | stream(chunk=64)", "int8", "window:40 | int8"])
@pytest.mark.parametrize("kind", KINDS)
def test_bytes_reported_are_bytes_allocated(kind: str, plan: str) -> None:
    model, _ = pair(kind)
    if kind == "mistral" and plan != "full":
        pytest.skip("a plan with no layer left to act on is refused")
    context = model.read(LONG, plan)
    contexts = [context, context.append(OTHER), context.ask(QUESTIONS[0], max_new_tokens=150).context]
    for each in contexts:
        assert each.held_bytes == allocated_bytes(each._cache)
        assert each.held_bytes == sum(view.nbytes for view in each.inspect())


@pytest.mark.parametrize("plan", ["snapkv:40(window=8)", "h2o:40(recent=8) | int4", "snapkv:40(window=8) | zipcache"])
def test_heads_that_share_keys_hold_them_once(plan: str) -> None:
    """Four query heads to one, two or four of keys: what is held, and at most while reading, goes by these alone."""
    held, most = [], []
    for kv_heads in (1, 2, 4):
        hf = tiny("llama", vocab_size=len(tiny_tokenizer()), kv_heads=kv_heads)
        context = farspan.load(hf, tokenizer=tiny_tokenizer()).read(LONG, plan)
        assert context.held_bytes == allocated_bytes(context._cache)
        held.append(context.held_bytes)
        most.append(context.cost.peak_bytes)
    assert held == [held[0], 2 * held[0], 4 * held[0]]
    assert most[1] == pytest.approx(2 * most[0], rel=0.02) and most[2] == pytest.approx(4 * most[0], rel=0.02)


def live_bytes() -> int:
    """Bytes of every tensor's storage there is."""
    import torch

    gc.collect()
    tensors = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def test_fifty_questions_and_forks_leave_nothing_behind() -> None:
    model, _ = pair("llama")
    context = model.read(LONG, "snapkv:40(window=8) | int8")
    context.ask(QUESTIONS[0], max_new_tokens=2)
    before = live_bytes()
    for _ in range(50):
        context.fork().ask(QUESTIONS[0], max_new_tokens=2)
    assert live_bytes() == before


@pytest.mark.parametrize(
    ("kind", "plan"),
    [(kind, plan) for kind in ("llama", "gemma3", "gpt2") for plan in ("full", "snapkv:40(window=8) | int8")]
    + [("llama", "yarn(factor=2)"), ("gemma3", "selfextend(factor=2)")],
)
def test_a_context_is_its_entries_and_nothing_of_the_model(kind: str, plan: str) -> None:
    model, _ = pair(kind)
    before = live_bytes()
    contexts = [model.read(LONG, plan) for _ in range(3)]
    beside = live_bytes() - before - sum(context.held_bytes for context in contexts)
    assert 0 < beside < 3 * 8192, "token ids, and the frequencies that positions turn by"


def test_loading_a_model_copies_none_of_its_weights() -> None:
    hf, tokenizer = tiny("llama", vocab_size=len(tiny_tokenizer())), tiny_tokenizer()
    before = live_bytes()
    model = farspan.load(hf, tokenizer=tokenizer)
    model.read(LONG, "full")
    assert live_bytes() - before < 8192 < sum(p.nbytes for p in hf.parameters()) / 10


def test_a_fork_shares_what_is_sealed() -> None:
    model, _ = pair("llama")
    context = model.read(LONG, "full")
    forks: list[Context] = [context.fork() for _ in range(20)]
    together = allocated_bytes(*(each._cache for each in (context, *forks)))
    assert together == context.held_bytes
