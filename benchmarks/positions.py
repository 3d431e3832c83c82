"""Positions past the trained length, on the reference model: one needle among facts in source code.

    farspan search-positions --text LIB/asyncio --length 20k --population 6 --generations 3 -o runs/positions/model.rope
    python -m benchmarks.positions [-o FOLDER] [--part NAME]
    python -m benchmarks.positions --write

Each part is a run of `farspan eval` in a folder of its own below FOLDER (default: runs/positions), so whatever stops
it, the same command goes on where it was. `--write` puts the tables into docs/positions.md, between the words that
stand there, from the parts that are there. LIB is the standard library; without factors to read, `longrope` is left
out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.lookup import TASKS, Named
from benchmarks.lookup_page import Made
from benchmarks.pages import claimed, code, machine, markdown, weights
from benchmarks.parts import main
from benchmarks.quality import Claim
from farspan.measure.cells import Summary
from farspan.measure.frame import load
from farspan.measure.paired import Comparison, compare

PAGE = Path("docs/positions.md")
FACTORS = Path("runs/positions/model.rope")
NEAR = ("linear", "ntk", "power", "truncated", "selfextend", "resonance(base=ntk)", "resonance", "yarn")
LONG = ("truncated", "resonance", "yarn")


def part(length: int, plans: Sequence[str], contexts: int) -> Named:
    """The plans of one length, the model as it is first."""
    rows = ("full", *plans)
    return Named(named={row: row for row in rows}, plans=rows, tasks=TASKS, lengths=(length,), contexts=contexts)


PARTS = {
    "8k": part(8192, NEAR, 8),
    "16k": part(
        16384,
        (
            *NEAR,
            *("yarn(factor=4)", "yarn(factor=8)"),
            *([f"longrope(factors={FACTORS})"] if FACTORS.is_file() else []),
        ),
        12,
    ),
    "32k": part(32768, LONG, 6),
    "64k": part(65536, ("resonance", "yarn"), 3),
}


CLAIMED = "16k"
CLAIMS = (
    Claim(said="YaRN extends without training (Peng et al. 2023)", better="yarn", worse="full"),
    Claim(said="YaRN, where interpolation loses", better="yarn", worse="linear"),
    Claim(said="YaRN, where NTK-aware scaling loses", better="yarn", worse="ntk"),
    Claim(said="Linear scaling is the best basis (Giraffe, trained with it)", better="linear", worse="truncated"),
    Claim(said="Longer scales than needed help (Giraffe, of linear ones)", better="yarn(factor=8)", worse="yarn"),
    Claim(said="The truncated basis extrapolates (Giraffe, trained with it)", better="truncated", worse="full"),
    Claim(said="Rounding wavelengths improves YaRN (Resonance)", better="resonance", worse="yarn"),
    Claim(said="Rounding wavelengths improves NTK-aware scaling", better="resonance(base=ntk)", worse="ntk"),
    Claim(said="SelfExtend extends without training (Jin et al. 2024)", better="selfextend", worse="full"),
    Claim(said="Searched factors are better than YaRN's (LongRoPE)", better="longrope", worse="yarn"),
)


def page(folder: Path) -> str:
    """The page with its tables made anew, from the parts that are there."""
    made = {
        name: Made(name, part, Summary(load([folder / name])))
        for name, part in PARTS.items()
        if (folder / name / "samples.jsonl").is_file()
    }
    manifest = dict(next(iter(made.values())).summary.frame.runs[0].manifest)
    text = PAGE.read_text(encoding="utf-8")
    text = _placed(text, "measured", f"{weights(manifest)} Run on {machine(manifest)}.\n\n{_table(made)}")
    return _placed(text, "claims", _claims(made))


def _placed(text: str, name: str, block: str) -> str:
    """`text` with another block between its two marks."""
    marks = re.compile(rf"(?<=<!-- {name} -->\n).*(?=<!-- end of {name} -->)", re.DOTALL)
    if not marks.search(text):
        raise ValueError(f"{PAGE} has no marks <!-- {name} --> and <!-- end of {name} -->")
    return marks.sub(lambda _: f"\n{block.strip()}\n\n", text)


def _table(made: dict[str, Made]) -> str:
    """One row per plan, one column per length."""
    rows = list(dict.fromkeys(row for each in made.values() for row in each.part.named))
    heads = [f"{name}, {len({r.context_id for r in each.records('full')})} contexts" for name, each in made.items()]
    table = [[code(_short(row)), *(_cell(each, row) for each in made.values())] for row in rows]
    return markdown([["plan", *heads], *table])


def _short(row: str) -> str:
    """The plan without the path of its file."""
    return row.replace(str(FACTORS), FACTORS.name)


def _cell(made: Made, row: str) -> str:
    """Right answers; and how many contexts they are of, where the run was stopped before it had all."""
    if row not in made.part.named:
        return "–"
    contexts = len({record.context_id for record in made.records(row)})
    return made.accuracy(row) + (f" of {contexts}" if contexts < made.part.contexts else "")


def _claims(made: dict[str, Made]) -> str:
    """Each at twice the trained length, where every plan was run."""
    sides = [[claim.said, f"{code(claim.better)} over {code(claim.worse)}"] for claim in CLAIMS]
    found = [_compared(claim, made.get(CLAIMED)) for claim in CLAIMS]
    return claimed([f"claim, at {CLAIMED}", "plans"], sides, found, lacking="not run")


def _compared(claim: Claim, made: Made | None) -> Comparison | None:
    if made is None:
        return None
    better, worse = (
        next((row for row in made.part.named if row.split("(factors")[0] == side), side)
        for side in (claim.better, claim.worse)
    )
    theirs = {record.id: record for record in made.records(worse)}
    pairs = [(theirs[record.id], record) for record in made.records(better) if record.id in theirs]
    scores = [[record.official or 0.0 for record in side] for side in zip(*pairs, strict=True)]
    return compare(*scores, [pair[0].context_id for pair in pairs]) if pairs else None


if __name__ == "__main__":
    main(__doc__, PARTS, page, "positions")
