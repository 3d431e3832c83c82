"""A run over a Ray cluster is the run of one process."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from farspan.errors import OptionError
from farspan.measure.fan import Draw
from farspan.measure.journal import read_manifest
from farspan.measure.ray_fan import RayFan, Worker
from farspan.measure.run import run
from tests.measure.situations import Coin, settings, subject
from tests.measure.test_run import records, results

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from farspan.measure.ray_fan import RayFan
from farspan.measure.run import run
from tests.measure.situations import settings, subject

wanted, model = settings(samples=4, modes=("agnostic", "aware")), subject()
with RayFan("local", subject, wanted, like=model.describe(), threads=1) as fan:
    run(wanted, model, sys.argv[1], fan=fan, elsewhere=fan.environments)
"""


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install 'farspan[ray]'")
def test_a_local_ray_makes_the_records_of_one_process(tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "ray")],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert made.returncode == 0, made.stderr
    run(settings(samples=4, modes=("agnostic", "aware")), subject(), tmp_path / "one")
    assert results(tmp_path / "ray") == results(tmp_path / "one")
    assert len(records(tmp_path / "ray")) == 64
    (where,) = read_manifest(tmp_path / "ray")["environments"]
    assert where["threads"] == 1 and where["device"] == "cpu"


def test_a_worker_makes_the_records_of_a_batch() -> None:
    wanted = settings()
    (batch, *_) = wanted.batches(wanted.cells[0])
    worker = Worker(Coin, 1, wanted.seed)
    assert [r.plan for records in worker.evaluate(batch, wanted.columns) for r in records] == [
        *["full"] * 2,
        *["window:40 | int8"] * 2,
    ]
    assert worker.told()[0] == Coin().describe()


def test_a_cell_that_may_stop_early_has_one_batch_under_way() -> None:
    wanted = settings()
    queues = {cell: wanted.batches(cell) for cell in wanted.cells}
    draw = Draw(queues, one_by_one=True)
    first, second = draw.next(), draw.next()
    assert first is not None and second is not None and draw.next() is None
    assert (first.cell.length, second.cell.length) == (160, 240)
    draw.done(second)
    third = draw.next()
    assert third is not None and (third.cell.length, third.indices) == (240, (1,))
    every = Draw({cell: wanted.batches(cell) for cell in wanted.cells}, one_by_one=False)
    batches = [batch for _ in range(7) if (batch := every.next()) is not None]
    assert [(b.cell.length, b.indices) for b in batches] == [(n, (i,)) for n in (160, 240) for i in range(3)]


def test_without_ray_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(OptionError, match=r"pip install 'farspan\[ray\]'"), RayFan(
        "local", Coin, settings(), like={}, threads=1
    ):  # fmt: skip
        pass


def test_where_nobody_listens_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farspan.measure.ray_fan._imported", lambda: None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    for form in (address, f"ray://{address}"):
        with pytest.raises(OptionError, match="no Ray cluster answers at"), RayFan(
            form, Coin, settings(), like={}, threads=1
        ):  # fmt: skip
            pass
