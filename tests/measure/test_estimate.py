"""A dry run says beforehand what a run then takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from farspan.measure import machine
from farspan.measure.estimate import Speed, _curve, estimated
from farspan.measure.run import run
from farspan.measure.settings import Cell
from farspan.plan import Plan
from farspan.tasks.base import seeded
from tests.measure.situations import Coin, Letters, settings, subject
from tests.measure.test_run import records

PLANS = ("full", "window:40 | int8", "snapkv:60(window=8)", "truncate:90", "snapkv:60(window=8) | layerwise(chunk=64)")


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_tokens_and_bytes_are_those_of_the_run(kind: str, tmp_path: Path) -> None:
    wanted = settings(plans=tuple(map(Plan.parse, PLANS)), samples=1, modes=("agnostic", "aware"))
    foreseen = {(e.cell.length, str(e.column.plan), e.column.mode): e for e in estimated(wanted, subject(kind))}
    assert len(foreseen) == 2 * len(PLANS) * 2
    run(wanted, subject(kind), tmp_path)
    for record in records(tmp_path):
        known = foreseen[record.length, record.plan, record.mode]
        assert (known.contexts, known.questions, known.trouble) == (1, 2, None)
        assert known.peak_bytes is not None and known.held_bytes is not None and known.seconds is not None
        assert record.peak_bytes is not None and record.held_bytes is not None and known.seconds > 0
        assert record.peak_bytes <= known.peak_bytes
        assert known.held_bytes == pytest.approx(record.held_bytes, rel=0.1)
        if not record.plan.startswith("truncate"):
            assert record.tokens in (known.tokens, known.tokens - 1)
        if record.mode == "agnostic":
            assert known.peak_bytes == stated(kind, known.cell, record.plan), "the very bound that the read then states"
    full, cut = (foreseen[240, plan, "agnostic"] for plan in ("full", "truncate:90"))
    assert cut.peak_bytes is not None and full.peak_bytes is not None and cut.peak_bytes < full.peak_bytes


def stated(kind: str, cell: Cell, plan: str) -> int:
    model, (task, length) = subject(kind), cell
    random = seeded(task, length=length, seed=0, index=0)
    passage = task.generate(0, length=length, counter=model.counter, random=random)
    return model.model.read(passage.context, plan).cost.stated_peak_bytes


def test_what_will_not_fit_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_bytes", lambda: 100_000)
    wanted = settings(lengths=(160, 1400), plans=(Plan.parse("full"), Plan.parse("snapkv:9(window=8)")), samples=2)
    troubles = {(e.cell.length, str(e.column.plan)): e.trouble for e in estimated(wanted, subject("gpt2"))}
    assert troubles[160, "full"] is not None and "100,000 bytes are free on cpu" in str(troubles[160, "full"])
    assert "1024" in str(troubles[1400, "full"])
    assert "floor" in str(troubles[160, "snapkv:9(window=8)"])
    monkeypatch.setattr(machine, "available_bytes", lambda: None)
    assert next(iter(estimated(wanted, subject("gpt2")))).trouble is None


def test_a_sample_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (told, *_) = estimated(settings(tasks=(Letters(breaks_at=0),)), subject())
    assert told.trouble == "this sample cannot be made"


def test_of_a_model_behind_a_wire_only_tokens_are_known() -> None:
    for told in estimated(settings(), Coin()):
        assert told.tokens > 0 and told.questions == 2 and told.seconds is None and told.peak_bytes is None


def test_the_curve_goes_through_both_measurements() -> None:
    speed = _curve([(256, 0.1), (1024, 1.0)], 0.01)
    assert speed.read(256) == pytest.approx(0.1) and speed.read(1024) == pytest.approx(1.0)
    assert speed.read(4096) > 4 * 1.0, "attention grows faster than the text"
    assert _curve([(256, 0.5), (1024, 1.0)], 0.0) == Speed(1.0 / 1024, 0.0, 0.0), "never bent the other way"


def test_free_memory_is_what_the_system_says() -> None:
    free = machine.available_bytes()
    assert free is None or 0 < free <= (machine.described()["memory_bytes"] or free)
