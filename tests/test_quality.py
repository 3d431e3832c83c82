"""The table of methods leaves none out, and its page is made of runs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import farspan
from benchmarks import pages, quality, quality_page
from farspan.measure.run import run
from farspan.plan import Plan
from farspan.registry import find, names
from tests.measure.situations import Coin

EVERY = ("methods", "sharing", "heads")
ELSEWHERE = {
    "uniform": "what every scorer does by itself",
    "quantised": "chooses among stores that are there, by a budget in bytes",
    "offload": "changes where entries lie, and no answer",
}


def test_every_method_that_keeps_or_packs_is_in_the_table():
    used = {method.name for part in EVERY for text in quality.PARTS[part].plans for method in Plan.parse(text).methods}
    there = {name for name in names() if find(name).family in ("retain", "store")}
    assert there - used == set(ELSEWHERE)


def test_every_claim_is_run():
    plans = set(quality.PARTS["claims"].plans)
    assert all({claim.better, claim.worse} <= plans for claim in quality.CLAIMS)
    for part in quality.PARTS.values():
        assert part.settings().plans[0] == Plan(), "the full cache, which decides what ranks"


def test_the_page_has_a_row_for_every_plan_and_claim(tmp_path: Path):
    for name, part in quality.PARTS.items():
        small = replace(part, tasks=("one_needle", "quote"), contexts=2)
        run(small.settings(), Coin(0.7), tmp_path / name)
    text = quality_page.page(tmp_path)
    for part in quality.PARTS.values():
        for plan in part.plans:
            assert f"`{Plan.parse(plan)}".replace("|", "\\|") in text
    assert all(claim.said in text for claim in quality.CLAIMS)
    assert len(re.findall(r"showed|did not show", text)) >= len(quality.CLAIMS)
    assert "**8,192 tokens**" in text


def test_the_page_says_whose_weights_answered():
    packed = farspan.load().fingerprint["weights"]
    assert pages.weights({"subject": {"fingerprint": {"weights": packed}}}).endswith(f"`{packed[:12]}`.")
    assert "measured anew" in pages.weights({"subject": {"fingerprint": {"weights": 32 * "0"}}})
    assert pages.weights({"subject": {"kind": "coin"}}) == ""
