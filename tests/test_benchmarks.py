"""What benchmarks print is kept, and shown with what was aimed at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks import record

ROW = {"name": "int4", "size": 131072, "ours": 0.02, "peer": 0.1, "floor": 0.01, "ratio": 5.0, "share_of_floor": 0.5}
MACHINE = {"attention": "native: C++ kernels with avx512 instructions", "threads": 2, "torch": "2.13.0"}
RESULT = {"benchmark": "attention step", "machine": MACHINE, "rows": [ROW, {**ROW, "name": "int8", "ratio": 2.5}]}


def test_a_result_is_kept_by_what_it_was_measured_on(tmp_path: Path):
    file = record.kept(RESULT, tmp_path)
    assert file.name == "attention_step-native-avx512-2threads.json" and json.loads(file.read_text()) == RESULT
    text = record.page(tmp_path)
    assert "| int4 | 131,072 | 5.00 | 4.5, met | 20 ms | 100 ms | 10 ms | 50% |" in text
    assert "| int8 | 131,072 | 2.50 | 3, missed |" in text


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
