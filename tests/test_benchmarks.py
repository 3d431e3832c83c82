"""What benchmarks print is kept, and shown with what was aimed at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import record
from benchmarks.growth import exponents
from benchmarks.memory import LEAST, apart, judged
from benchmarks.timing import Row, said

ROW = {"name": "int4", "size": 131072, "ours": 0.02, "peer": 0.1, "floor": 0.01, "ratio": 5.0, "share_of_floor": 0.5}
MACHINE = {"attention": "native: C++ kernels with avx512 instructions", "threads": 2, "torch": "2.13.0"}
RESULT = {"benchmark": "attention step", "machine": MACHINE, "rows": [ROW, {**ROW, "name": "int8", "ratio": 2.5}]}


def test_a_result_is_kept_by_what_it_was_measured_on(tmp_path: Path):
    file = record.kept(RESULT, tmp_path)
    assert file.name == "attention_step-native-avx512-2threads.json" and json.loads(file.read_text()) == RESULT
    text = record.page(tmp_path)
    assert "| int4 | 131,072 | 5.00 | 4.5, met | 20 ms | 100 ms | 10 ms | 50% |" in text
    assert "| int8 | 131,072 | 2.50 | 3, missed |" in text


def test_memory_is_shown_beside_the_full_cache(tmp_path: Path):
    full, row = 2 * 2**30, {"tokens": 4200, "held_bytes": 70 * 2**20, "alone": 74 * 2**20, "peak": 9e8}
    read = {
        plan: judged(plan, {**row, "full_bytes": full, "grown": grown * 2**20})
        for plan, grown in {"full": 2048, "snapkv:10%": 223, "snapkv:10% | int4": 80}.items()
    }
    assert {plan: each["met"] for plan, each in read.items()} == {
        "full": None,
        "snapkv:10%": True,  # 10.5% are 215.04 MiB, and 8 more are allowed
        "snapkv:10% | int4": False,  # 3.5% are 71.68
    }
    last = {"name": "answer", "tokens": 20000, "grown": 2**19, "peak": 2**20, "aim": 0.0, "met": True}
    result = {"benchmark": "memory", "machine": MACHINE, "slack": 8 * 2**20, "rows": [*read.values(), last]}
    record.kept(result, tmp_path)
    text = record.page(tmp_path)
    assert "| full | 4,200 | 2,048.0 | 70.0 | 2,048.0 | 100.00% |  | 74.0 | 858.3 |" in text
    assert r"| snapkv:10% \| int4 | 4,200 | 2,048.0 | 70.0 | 80.0 | 3.91% | 3.5%, missed | 74.0 | 858.3 |" in text
    assert "| answer | 20,000 |  |  | 0.5 |  | 0.0%, met |  | 1.0 |" in text


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="measured by Linux's /proc")
def test_a_process_grows_by_what_a_plan_holds():
    """The memory benchmark's plainest rows; `make bench-all` has them all."""
    for plan in ("window:10%", "snapkv:10% | int4"):
        row = judged(plan, apart("--read", plan, "--characters", "16600"))
        assert row["full_bytes"] >= LEAST and row["met"], row


def test_a_benchmark_that_did_not_end_is_not_kept(tmp_path: Path):
    (tmp_path / "docs").mkdir()
    command = [sys.executable, "-m", "benchmarks.record"]
    root = Path(__file__).parents[1]
    found = subprocess.run(
        command, input="a table\n", text=True, capture_output=True, cwd=tmp_path, env={"PYTHONPATH": str(root)}
    )
    assert found.returncode == 1 and "did not end" in found.stderr and not list(tmp_path.rglob("*.json"))


def test_the_page_is_that_of_the_results():
    root = Path(__file__).parents[1]
    assert (root / record.PAGE).read_text() == record.page(root / record.RESULTS)


def test_growth_is_the_exponent_of_the_length():
    sizes = (1000, 2000, 8000)
    rows = [Row(name="read", size=n, ours=3e-6 * n, peer=1e-9 * n**2, floor=0.0) for n in sizes]
    rows.append(Row(name="once", size=1000, ours=1.0, peer=1.0, floor=1.0))
    assert exponents(rows) == {"read": {"ours": 1.0, "peer": 2.0}}, "one length says nothing about growth"


def test_rows_of_bytes_are_shown_as_bytes(tmp_path: Path):
    row = {**ROW, "name": "held", "unit": "B", "ours": 3 * 2**20, "peer": 6 * 2**20, "floor": 2**20}
    record.kept({**RESULT, "rows": [row]}, tmp_path)
    assert "| 3.0 MiB | 6.0 MiB | 1.0 MiB |" in record.page(tmp_path) and said(0.0005, "s") == "0.5 ms"
