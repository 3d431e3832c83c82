"""The page of positions is made of runs, and its words stay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import positions
from farspan.measure.run import run
from farspan.plan import Plan
from farspan.registry import find, names
from tests.measure.situations import Coin


def test_every_positions_method_is_in_the_table():
    used = {method.name for plan in positions.PARTS["16k"].plans for method in Plan.parse(plan).methods}
    assert {name for name in names() if find(name).family == "positions"} - used <= {"longrope"}, "which needs a file"


def test_every_claim_is_run():
    for claim in positions.CLAIMS:
        assert {claim.better, claim.worse} - {"longrope"} <= set(positions.PARTS[positions.CLAIMED].plans)


def test_the_page_keeps_its_words_and_has_a_row_for_every_plan(tmp_path: Path):
    for name, part in positions.PARTS.items():
        run(replace(part, lengths=(1024,), contexts=3).settings(), Coin(0.7), tmp_path / name)
    before, text = positions.PAGE.read_text(), positions.page(tmp_path)
    assert text.splitlines()[0] == before.splitlines()[0]
    assert all(f"`{positions._short(plan)}`" in text for part in positions.PARTS.values() for plan in part.plans)
    assert all(claim.said in text for claim in positions.CLAIMS)
    assert " of 3 " in text, "fewer contexts than were to be"


def test_a_page_without_marks_is_refused():
    with pytest.raises(ValueError, match="<!-- measured -->"):
        positions._placed("# Past the trained length", "measured", "a table")
