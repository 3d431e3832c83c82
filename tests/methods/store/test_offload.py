"""offload: entries lie on disk and answers are the same; a disk that is full or fails says so."""

from __future__ import annotations

import errno
import gc
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import farspan
import farspan.attention.kernels as kernels_module
from farspan.cache import DenseBlock, Extent, entries_at
from farspan.cache.spill import HostShelf, Spill
from farspan.errors import DamagedFile, PlanDoesNotApply, PlanError, StorageError
from farspan.plan import Plan
from farspan.testing import allocated_bytes
from tests.models import tiny, tiny_tokenizer
from tests.oracle.pairwise import pairwise
from tests.oracle.recording import TOLERANCE, agreement, recording
from tests.oracle.situations import BATCHES, LONG, ORDERS, OTHER, QUESTIONS, SITUATIONS, pair, read

ROOT = Path(__file__).parents[3]
PLANS = ("", "int4 | ", "snapkv:40(window=8) | ", "adakv:40 | snapkv(window=8) | int8(residual=8) | ")


@pytest.mark.parametrize("plan", PLANS)
def test_answers_and_entries_are_those_without_it(plan: str, tmp_path: Path) -> None:
    model, _ = pair("llama")
    here = model.read(LONG, f"{plan}stream(chunk=64)")
    there = model.read(LONG, f"{plan}offload | stream(chunk=64)")
    questions = list(QUESTIONS)
    for a, b in zip(here.ask(questions, max_new_tokens=20), there.ask(questions, max_new_tokens=20), strict=True):
        assert a.token_ids == b.token_ids
    for mine, other in zip(here.inspect(), there.inspect(), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(mine.positions, other.positions, strict=True))


@pytest.mark.parametrize("plan", PLANS)
def test_only_positions_and_what_has_not_sealed_stay_in_memory(plan: str) -> None:
    model, _ = pair("llama")
    here, there = (model.read([LONG, OTHER], f"{plan}{place}") for place in ("stream", "offload"))
    positions = sum(e.positions.untyped_storage().nbytes() for layer in there._cache.layers for e in layer.extents)
    unsealed = sum(layer.tail.nbytes for layer in there._cache.layers)
    unsealed += sum(e.nbytes for layer in there._cache.layers for e in layer.extents if e.kept)
    kept = sum(e.positions.nbytes for layer in there._cache.layers for e in layer.extents if e.kept)
    assert there.held_bytes == allocated_bytes(there._cache) == positions + unsealed - kept
    assert there.held_bytes + there.elsewhere_bytes == here.held_bytes
    assert there.elsewhere_bytes > there.held_bytes or "residual" in plan
    there.ask("Why?", max_new_tokens=3)
    assert there.held_bytes == allocated_bytes(there._cache)
    assert here.elsewhere_bytes == 0


def test_the_file_has_no_name_and_goes_with_the_last_context(tmp_path: Path) -> None:
    def spills() -> int:
        found = 0
        for number in os.listdir("/proc/self/fd"):
            try:
                found += str(tmp_path) in os.readlink(f"/proc/self/fd/{number}")
            except OSError:
                continue
        return found

    model, _ = pair("llama")
    context = model.read(LONG, Plan.parse(f"offload(path='{tmp_path}')"))
    assert list(tmp_path.iterdir()) == []
    assert spills() == 1
    fork = context.fork()
    del context
    gc.collect()
    assert spills() == 1
    assert fork.ask("Why?", max_new_tokens=2).text is not None
    del fork
    gc.collect()
    assert spills() == 0


def a_spill(context: farspan.Context) -> int:
    """The descriptor of a context's spill file."""
    record = context._cache.layers[0].extents[0]._load
    assert record is not None
    bring = record.__closure__[0].cell_contents  # type: ignore[index]
    return bring.func.__self__._file.fileno()


def test_a_damaged_file_is_refused_when_it_is_read() -> None:
    model, _ = pair("llama")
    context = model.read(LONG, "offload")
    os.pwrite(a_spill(context), b"\x00\x01\x02\x03", 100)
    with pytest.raises(DamagedFile, match=r"spill file in .* is damaged: layer 0 is not what was written"):
        context.ask("Why?", max_new_tokens=2)


def test_a_file_cut_short_is_refused_when_it_is_read() -> None:
    model, _ = pair("llama")
    context = model.read(LONG, "offload")
    os.ftruncate(a_spill(context), 1000)
    with pytest.raises(DamagedFile, match=r"spill file in .* was cut short at 1,000 bytes"):
        context.ask("Why?", max_new_tokens=2)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    model, _ = pair("llama")
    with pytest.raises(StorageError, match=r"cannot spill into .*nowhere: no such file or directory.*offload\(path="):
        model.read(LONG, f"offload(path='{tmp_path}/nowhere')")


def test_a_folder_that_vanished_is_named_by_what_needs_it_next_and_harms_nothing_else(tmp_path: Path) -> None:
    model, _ = pair("llama")
    (tmp_path / "spill").mkdir()
    context = model.read(LONG, f"offload(path='{tmp_path}/spill')")
    before = context.ask("Why?", max_new_tokens=4).token_ids
    (tmp_path / "spill").rmdir()
    assert context.ask("Why?", max_new_tokens=4).token_ids == before, "its file has no name, so nobody can remove it"
    with pytest.raises(StorageError, match=r"cannot spill into .*spill: no such file or directory.*offload\(path="):
        context.append(OTHER)
    assert context.ask("Why?", max_new_tokens=4).token_ids == before


@pytest.mark.parametrize("plan", ["int8", "int8 | offload"])
def test_a_context_outlives_the_name_of_the_file_it_was_opened_from(plan: str, tmp_path: Path) -> None:
    model, _ = pair("llama")
    context = model.read(LONG, plan)
    opened = model.open(context.save(tmp_path / "a.ctx"))
    (tmp_path / "a.ctx").unlink()
    assert opened.ask("Why?", max_new_tokens=9).token_ids == context.ask("Why?", max_new_tokens=9).token_ids
    again = model.open(opened.save(tmp_path / "b.ctx"))
    assert again.score("Why?").logprobs == context.score("Why?").logprobs


def test_a_full_disk_says_how_much_was_needed_and_leaves_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = pair("llama")
    context = model.read(LONG, "offload")
    before = context.ask("Why?", max_new_tokens=4).token_ids

    def full(*args: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(
            StorageError, match=r"cannot spill [\d,]+ bytes into .*: no space left on device, [\d,]+ are free"
        ):
            context.append(OTHER)
    assert context.ask("Why?", max_new_tokens=4).token_ids == before


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
from tests.oracle.situations import LONG, pair
from farspan.errors import StorageError
try:
    pair("llama")[0].read([LONG] * 4, "offload")
except StorageError as error:
    print(error)
"""


def test_a_real_limit_of_the_system_ends_in_the_same_sentence() -> None:
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LIMITED], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": "src:.", "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert "cannot spill" in run.stdout and "file too large" in run.stdout, run.stderr


def test_the_next_layer_is_fetched_while_this_one_is_attended_to(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = pair("llama")
    context = model.read(LONG, "offload | stream(chunk=64)")
    advised: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, offset, length, advice: advised.append((offset, length)))
    context.ask("Why?", max_new_tokens=1)
    extents = [len(layer.extents) for layer in context._cache.layers]
    assert len(advised) == sum(extents), "each layer once in one pass: during layer 2, the first again"
    assert len(set(advised)) == len(advised)


def test_an_opened_context_is_read_from_its_file(tmp_path: Path) -> None:
    model, _ = pair("llama")
    context = model.read(LONG, "int8 | offload")
    context.save(tmp_path / "a.ctx")
    opened = model.open(tmp_path / "a.ctx")
    assert opened.held_bytes == 0
    assert opened.ask("Why?", max_new_tokens=9).token_ids == context.ask("Why?", max_new_tokens=9).token_ids
    assert opened.held_bytes == allocated_bytes(opened._cache) == context.held_bytes
    assert opened.elsewhere_bytes >= context.elsewhere_bytes


def test_host_memory_is_refused_where_the_model_is_there_already() -> None:
    model, _ = pair("llama")
    with pytest.raises(PlanDoesNotApply, match=r"offload does not apply: .* runs in host memory already.*to=disk"):
        model.read(LONG, "offload(to=host)")
    with pytest.raises(PlanError, match="path=/tmp is a folder, and host memory has none"):
        Plan.parse("offload(to=host, path='/tmp')")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_entries_lie_in_host_memory() -> None:
    tokenizer = tiny_tokenizer()
    model = farspan.load(tiny("llama", vocab_size=len(tokenizer)).cuda(), tokenizer=tokenizer)
    here, there = model.read(LONG, "int8"), model.read(LONG, "int8 | offload(to=host)")
    assert there.elsewhere_bytes + there.held_bytes == here.held_bytes
    assert here.ask("Why?", max_new_tokens=9).token_ids == there.ask("Why?", max_new_tokens=9).token_ids


def test_a_spill_keeps_every_dtype(tmp_path: Path) -> None:
    from farspan.cache import Extent
    from farspan.methods.store.fp8 import Fp8

    spill = Spill(str(tmp_path))
    keys = torch.randn(2, 40, 16).to(torch.bfloat16)
    extent = Fp8().seal(Extent.dense(keys, keys, torch.arange(40, dtype=torch.int32)))
    there = spill.put(extent, 0)
    assert all(torch.equal(a, b) for a, b in zip(there.entries(), extent.entries(), strict=True))


COVERING = pairwise(
    {
        "kind": ("llama", "gemma3", "gpt2"),
        "plan": tuple(f"{plan}offload" for plan in PLANS),
        "order": ORDERS,
        "batch": BATCHES,
        "situation": ("third turn", "fork", "append to a conversation", "save and open"),
    }
)


@pytest.mark.parametrize("row", COVERING, ids=lambda row: "-".join(row.values()))
def test_logits_are_those_of_the_replayed_decisions(row: dict, tmp_path: Path) -> None:
    model, twin = pair(row["kind"])
    with recording() as record:
        contexts = read(model, f"{row['plan']} | {row['order']}", row["batch"], row["situation"])
        chains = [chain for c in contexts for chain in SITUATIONS[row["situation"]](c, row["batch"], tmp_path)]
    for chain in chains:
        assert agreement(twin, record, *chain) <= TOLERANCE


def measured(plan: str, tokens: int) -> dict[str, float]:
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "tests/runtime/measured_read.py", plan, str(tokens)],
        cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": "src:.", "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"},
    )  # fmt: skip
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="measured by Linux's /proc")
def test_memory_does_not_grow_with_a_text_that_lies_on_disk() -> None:
    """Everything is held, on disk; what the process has of its own grows by positions and by one layer while asking."""
    token = 4 * 2 * 4 * 32 * 4  # bytes of a token in the measured model
    short, long = (measured("offload", tokens) for tokens in (16384, 65536))
    more = long["seen"] - short["seen"]
    here = measured("full", 65536)
    assert here["pss"] - here["pss_before"] > 0.9 * token * here["seen"]
    assert long["pss"] - short["pss"] < 0.1 * token * more
    assert long["held_bytes"] < 0.02 * token * long["seen"]


# -- of what lies elsewhere, only the pages that hold what is fetched are brought -----------------------------------

PACKED = ("", "int8(group=32)", "int4(group=16)", "int2(group=16)", "fp8")


def packed(store: str, counts: tuple[int, ...]) -> Extent:
    """Random entries of heads that hold so many each."""
    generator = torch.Generator().manual_seed(sum(counts))
    keys, values = (torch.randn(sum(counts), 16, generator=generator) for _ in range(2))
    positions = torch.cat([torch.arange(count, dtype=torch.int32) * 3 + h for h, count in enumerate(counts)])
    offsets = tuple(itertools.accumulate(counts, initial=0))
    extent = Extent(DenseBlock(keys, values), positions, offsets, shared=False)
    store_of = Plan.parse(store).get("store") if store else None
    return extent if store_of is None else extent.holding(store_of.pack(keys, values, counts))


@given(
    st.sampled_from(PACKED),
    st.lists(st.integers(0, 150), min_size=1, max_size=3),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["disk", "host"]),
)
def test_pages_hold_what_was_asked_for(store: str, sizes: list[int], seed: int, to: str) -> None:
    sizes = [*sizes, 40]
    extent, generator = packed(store, tuple(sizes)), torch.Generator().manual_seed(seed)
    there = (Spill() if to == "disk" else HostShelf()).put(extent, 0)
    slots = [torch.randperm(n, generator=generator)[: int(n * 0.2)].sort().values for n in sizes]
    few, at = there.picked(slots)
    assert few is not there and not few.kept
    wanted, brought = extent.entries(), few.entries()
    for head, (mine, its) in enumerate(zip(slots, at, strict=True)):
        for a, b in zip(wanted, brought, strict=True):
            assert torch.equal(a[extent.offsets[head] + mine], b[few.offsets[head] + its])
    for (keys, values), (other, others) in zip(entries_at(there, slots), entries_at(extent, slots), strict=True):
        assert torch.equal(keys, other) and torch.equal(values, others)


@pytest.mark.parametrize("store", ["", "int4(group=16) | "])
@pytest.mark.parametrize("kernels", ["torch", "native"])
def test_a_step_brings_the_pages_that_it_fetches_from_and_no_more(
    store: str, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted: bytes that come from the file for one question's worth of steps, layer by layer."""
    monkeypatch.setattr(kernels_module, "backend", lambda device: kernels_module.Choice(kernels, "tested", {}))
    model, _ = pair("llama")
    fetch = "quest:64(page=16, sinks=4, recent=16)"
    there = model.read([LONG] * 6, f"{store}{fetch} | offload")
    whole = there.elsewhere_bytes
    brought, preadv = [0], os.preadv

    def counted(*args: object) -> int:
        brought[0] += (count := preadv(*args))
        return count

    monkeypatch.setattr(os, "preadv", counted)
    steps = 6
    answer = there.ask("Why?", max_new_tokens=steps)
    fed = model.prompts.question("Why?", last=None, eos=model.eos).numel() + steps - 1
    entry = whole / sum(sum(e.counts) for layer in there._cache.layers for e in layer.extents)
    pages = 64 + 16 + 2 * 16  # fetched pages, sinks' and those that recent tokens begin and end in
    most = fed * len(there._cache.layers) * 2 * pages * entry
    assert 0 < brought[0] <= most * 1.05 < 0.5 * fed * whole
    by_pages, brought[0] = brought[0], 0
    monkeypatch.setattr(Extent, "picked", lambda self, slots: (self, tuple(slots)))
    assert there.ask("Why?", max_new_tokens=steps).token_ids == answer.token_ids
    assert brought[0] > fed * whole, "without pages extents come whole, whatever is read of them"
    assert by_pages < brought[0] / 4


def test_a_page_that_is_damaged_is_refused_and_others_are_not() -> None:
    extent = packed("", (100, 60))
    spill = Spill()
    there = spill.put(extent, 5)
    os.pwrite(spill._file.fileno(), b"\x00\x01\x02\x03", 50 * 64)  # the 50th entry's key, in the fourth page
    none = torch.empty(0, dtype=torch.int64)
    assert torch.equal(entries_at(there, [torch.tensor([0, 90]), none])[0][0], extent.entries()[0][[0, 90]])
    with pytest.raises(DamagedFile, match="layer 5 is not what was written"):
        entries_at(there, [torch.tensor([60]), none])
    with pytest.raises(DamagedFile, match="layer 5 is not what was written"):
        there.entries()
