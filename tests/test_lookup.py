"""The table of looking up, patterns and pieces leaves no method out, and its page is made of runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import lookup, lookup_page
from farspan.measure.outcome import Outcome
from farspan.measure.record import Mode
from farspan.measure.run import run
from farspan.plan import Plan
from farspan.registry import find, names
from farspan.tasks.base import Passage
from tests.measure.situations import Coin


class Covering(Coin):
    """Says what a local model would of recall and entries, for plans that fetch."""

    def answer(self, passages: Sequence[Passage], plans: Sequence[Plan], mode: Mode) -> Iterator[list[list[Outcome]]]:
        for plan, outcomes in zip(plans, super().answer(passages, plans, mode), strict=True):
            told = {"held": 2000.0, "held_bytes": 4000 if plan.get("fetch") is None else 5000}
            if plan.get("fetch") is not None:
                told |= {"recall": (0.25, 0.75), "entries_read": 324.0}
            yield [[replace(outcome, **told) for outcome in its] for its in outcomes]


@pytest.mark.parametrize("family", ["fetch", "prefill", "parallel"])
def test_every_method_of_a_family_is_in_its_table(family: str) -> None:
    parts = [part for name, part in lookup.PARTS.items() if name.startswith(family)]
    for part in parts:
        used = {method.name for text in part.plans for method in Plan.parse(text).methods}
        there = {name for name in names() if find(name).family == family}
        assert there <= used


def test_baselines_hold_what_methods_read() -> None:
    for part in lookup.PARTS.values():
        for row, text in part.named.items():
            method, _, k = row.rpartition(" ")
            budgets = [m.budget.value for m in Plan.parse(text).methods if getattr(m, "budget", None)]
            if method in lookup.NULLS:
                assert budgets in ([int(k) + 68], [int(k)])
            if method in lookup.FETCHED:
                fetch = Plan.parse(text).get("fetch")
                assert budgets == [int(k)] and (fetch.sinks, fetch.recent, fetch.read) == (4, 64, False)


def test_rows_that_fetch_share_few_readings() -> None:
    for name, part in lookup.PARTS.items():
        if name.startswith("fetch"):
            plans = [Plan.parse(text) for row, text in part.named.items() if row.split()[0] in lookup.FETCHED]
            noted = {plan.reading for plan in plans}
            assert len(noted) == 4, "plain, and one for each method that takes notes while it reads"


def test_every_claim_has_its_rows_and_beyond_training_everything_is_stretched() -> None:
    for claim in lookup.CLAIMS:
        rows = [part.named for name, part in lookup.PARTS.items() if name.startswith(claim.family)]
        assert any({claim.better, claim.worse} <= set(named) for named in rows), claim.said
    for part in lookup.PARTS.values():
        for text in part.plans:
            stretched = Plan.parse(text).get("positions") is not None
            assert stretched == (part.lengths[0] > lookup.TRAINED) or "jrt" in text


def test_the_page_has_a_row_for_every_plan_and_claim(tmp_path: Path) -> None:
    for name, part in lookup.PARTS.items():
        contexts = 1 if name == "fetch-8k" else 2
        run(replace(part, contexts=contexts, lengths=(2048,)).settings(), Covering(0.7), tmp_path / name)
    text = lookup_page.page(tmp_path)
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    fetched = [row for row in rows if row[0] == "| `squeezed`"]
    assert len(fetched) == 4 and all(row[-3:] == ["25 75", "324", "25.0% |"] for row in fetched)
    assert {row[2] for row in fetched} == {"50.0"}, "covered is the mean over layers"
    assert "1 context of 4 (stopped early" in text
    for claim in lookup.CLAIMS:
        (row,) = (row for row in rows if row[0] == f"| {claim.said}")
        assert any(verdict in row[-1] for verdict in ("showed", "undecided", "did not show"))
    for part in lookup.PARTS.values():
        for row, plan in part.named.items():
            if not row.split()[-1].isdigit() or row.endswith(" 256"):
                assert str(Plan.parse(plan)).replace("|", "\\|") in text


def test_a_page_of_some_parts_says_what_was_not_run(tmp_path: Path) -> None:
    part = replace(lookup.PARTS["parallel-2k"], contexts=2)
    run(part.settings(), Coin(0.7), tmp_path / "parallel-2k")
    text = lookup_page.page(tmp_path)
    lacking = ", ".join(name for name in lookup.PARTS if name != "parallel-2k")
    assert f"**This table is unfinished**: nothing of {lacking} was run; parallel-2k stopped early." in text
    assert text.count("| undecided: too few contexts |") == sum(claim.family == "parallel" for claim in lookup.CLAIMS)
    assert text.count("| not run |") == sum(claim.family != "parallel" for claim in lookup.CLAIMS)
    assert not math.isnan(float(text.split("right, 2k")[1].split("`full` | ")[1].split(" ")[0]))


def test_keeping_is_shown_by_an_interval_and_not_by_a_lack_of_proof() -> None:
    from farspan.measure.paired import compare

    contexts = [i // 8 for i in range(64)]
    same = compare([1.0, 0.0] * 32, [1.0, 0.0] * 32, contexts)
    few = compare([1.0, 0.0] * 4, [1.0, 1.0] * 4, [0] * 8)
    worse = compare([1.0] * 64, [float(i % 8 > 3) for i in range(64)], contexts)
    assert same and few and worse
    assert lookup_page._kept(worse, worse.p) == "the opposite showed"
    assert lookup_page._kept(few, few.p) == "undecided"
    slight = compare([0.0] * 320, [float(i % 40 == 0) for i in range(320)], [i // 8 for i in range(320)])
    assert slight and lookup_page._kept(slight, slight.p) == "showed"
