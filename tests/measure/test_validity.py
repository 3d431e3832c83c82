"""Each check finds the one fault it is for, names the task, and leaves sound runs alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farspan.measure.frame import load
from farspan.measure.record import Record
from farspan.measure.validity import Check, check, verdict
from tests.measure.synthetic import KINDS, changed, records, write

NIAH, VT = KINDS[0].task, KINDS[1].task


def checked(folder: Path, made: list[Record]) -> dict[str, Check]:
    """By name; those of replies without where they were looked at."""
    return {found.name.removesuffix(" under the full cache"): found for found in check(load([write(folder, made)]))}


def test_a_sound_run_passes(tmp_path: Path):
    found = checked(tmp_path, records(contexts=8))
    assert [c.name for c in found.values() if c.verdict != "pass"] == []
    assert verdict(found.values()) == "pass"
    assert sum(found["gold depths spread"].histogram) == 4 * (64 + 64 + 8)  # once per sample, not per plan


def test_what_a_plan_cuts_off_is_its_score_and_no_fault(tmp_path: Path):
    made = records(kinds=KINDS[:2], contexts=10, plans=("full", "truncate:25%"))
    cut = changed(made, lambda r: r.plan.startswith("truncate"), gold_present=False, prompt_hash="same")
    assert [c.name for c in checked(tmp_path, cut).values() if c.verdict != "pass"] == []


FAULTS: list[tuple[str, dict[str, Any], float, str]] = [
    ("errors", {"status": "error", "error": "out of memory\nat layer 3", "official": None}, 0.01, "fail"),
    ("truncated prompts", {"truncated": True}, 0.01, "fail"),
    ("gold text missing", {"gold_present": False}, 0.01, "fail"),
    ("length filled", {"tokens": 5000}, 0.01, "fail"),
    ("length filled", {"tokens": 700}, 1.0, "warn"),
    ("replies at the token cap", {"finish": "length"}, 0.2, "warn"),
    ("replies at the token cap", {"finish": "length"}, 1.0, "warn"),
    ("replies at the token cap", {"finish": "length"}, 0.05, "pass"),
    ("empty replies", {"reply": " \n"}, 0.05, "warn"),
    ("empty replies", {"reply": ""}, 0.5, "fail"),
    ("unparsable replies", {"parsed": False}, 0.03, "pass"),
    ("unparsable replies", {"parsed": False}, 0.2, "warn"),
    ("unparsable replies", {"parsed": False}, 0.7, "fail"),
    ("gold depths spread", {"depth": 0.91}, 1.0, "warn"),
    ("duplicate prompts", {"prompt_hash": "same"}, 0.02, "warn"),
    ("duplicate prompts", {"prompt_hash": "same"}, 0.2, "fail"),
]


@pytest.mark.parametrize(("name", "fault", "share", "expected"), FAULTS)
def test_a_fault_is_found_in_its_task(tmp_path: Path, name: str, fault: dict[str, Any], share: float, expected: str):
    made = records(kinds=KINDS[:2], contexts=10, lengths=(1024, 4096), plans=("full", "int4"))
    ids = sorted({r.id for r in made if r.task == NIAH})
    hit = set(ids[: max(1, round(share * len(ids)))])
    found = checked(tmp_path, changed(made, lambda r: r.id in hit, **fault))
    assert found[name].verdict == expected
    assert [w.split(":")[0] for w in found[name].where] == ([] if expected == "pass" else [NIAH])
    others = [other for other, c in found.items() if c.verdict != "pass" and other != name]
    assert others == []


def test_errors_are_quoted_and_capped_replies_judged(tmp_path: Path):
    made = records(kinds=KINDS[:1], contexts=4, lengths=(1024,), plans=("full",))
    failed = changed(made, lambda r: r.question == 0, status="error", error="out of memory\nat layer 3", official=None)
    assert checked(tmp_path / "a", failed)["errors"].found == "4 of 32: out of memory (4 times)"
    capped = changed(made, lambda r: True, finish="length", official=1.0)
    capped = changed(capped, lambda r: r.question < 2, official=0.0)
    assert (
        checked(tmp_path / "b", capped)["replies at the token cap"].found
        == "32 of 32: 8 of them short of the full score"
    )


def test_columns_that_lack_samples_and_files_with_remarks_are_named(tmp_path: Path):
    made = records(kinds=KINDS[:1], contexts=2, lengths=(1024,), plans=("full", "int4"))
    found = checked(tmp_path, [*made[:-3], made[0]])
    assert found["same samples in every column"].where == ("int4: 3 missing",)
    assert found["files as they should be"].verdict == "fail"
    assert "1 samples answered twice" in found["files as they should be"].where[0]


def test_a_text_judged_bit_by_bit_is_full_at_its_end(tmp_path: Path):
    made = records(kinds=KINDS[:1], contexts=2, lengths=(1024,), plans=("full",))
    made = [replace(r, nll=1.0, tokens=1024 - 64 * (7 - r.question), max_new_tokens=64) for r in made]
    assert checked(tmp_path, made)["length filled"].found == "100.0% to 100.0%, mean 100.0%"


def test_suites_of_their_own_lengths_have_no_fill(tmp_path: Path):
    made = changed(records(kinds=KINDS[:1], contexts=1, lengths=(1024,)), lambda r: True, length=0)
    assert checked(tmp_path, made)["length filled"].found == "no sample to check"


def test_what_a_plan_breaks_is_its_score_and_no_fault_of_the_run(tmp_path: Path):
    made = records(kinds=KINDS[:1], contexts=2, lengths=(1024,), plans=("full", "int4"))
    broken = changed(made, lambda r: r.plan == "int4", reply="", parsed=False, finish="length")
    assert verdict(checked(tmp_path / "a", broken).values()) == "pass"
    alone = checked(tmp_path / "b", [r for r in broken if r.plan == "int4"])
    assert {n for n, c in alone.items() if c.verdict != "pass"} == {
        "replies at the token cap",
        "empty replies",
        "unparsable replies",
    }


def test_the_verdict_is_the_worst(tmp_path: Path):
    made = changed(records(kinds=KINDS[:1], contexts=1), lambda r: r.question == 0, truncated=True)
    assert verdict(checked(tmp_path, made).values()) == "fail"
