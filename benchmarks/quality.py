"""The quality of every method on the reference model: `python -m benchmarks.quality [-o FOLDER] [--part NAME]`.

Each part is a run of `farspan eval` in a folder of its own below FOLDER (default: runs/quality), so whatever stops it,
the same command goes on where it was; in all it takes about two hours of one core, and two parts may run side by side.
`--write` puts the tables into docs/quality.md, from the parts that are there.

* `methods`: every scorer, allocator and folder at 25% and 10%, every store, and compositions, beside the null
  baselines; 2k tokens, stream order, query-agnostic, eight contexts of eight questions each per task.
* `budgets`, `layerwise`: six named plans at 50% to 10%, and in the other order, without the question and with it
  (`aware`, which reads once per question); four contexts. `lengths`: at 4k and 8k tokens, eight.
* `sharing`, `heads`: scores that layers share and heads that are pruned, in the tasks and contexts of `methods`.
* `claims`: pairs of plans that a paper says something about, at a quarter of the cache, where most plans are neither at
  zero nor at the full cache's score; without the question and with it; eight contexts of eight questions each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.parts import Part, main
from farspan.measure.record import Mode

TASKS = (
    *("one_needle", "four_keys", "forty_keys", "multi_value", "multi_query"),
    *("chain_2", "chain_4", "second_question", "quote", "perplexity"),
)
NEEDLES = ("one_needle", "four_keys", "multi_value", "multi_query", "second_question", "quote")
SCORERS = (
    *("window", "random", "snapkv", "h2o", "tova", "keynorm", "keydiff", "expected", "sirllm", "globallocal"),
    *("spatten", "fastgen"),
)
ALLOCATORS = ("pyramid", "adakv", "headkv", "taskkv", "tca", "shallow")
FOLDERS = ("ems", "lookm")
STORES = ("int8", "fp8", "int4", "int2", "zipcache", "shadowkv")
COMPOSED = ("snapkv:25% | int8", "snapkv:25% | int4", "snapkv:10% | int4", "headkv:10% | int4", "ems:10% | int4")
NULLS = ("window", "random", "truncate")
BOTH: tuple[Mode, ...] = ("agnostic", "aware")
SIX = ("window", "snapkv", "adakv", "headkv", "expected", "ems")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a paper says: `better` answers more than `worse`, at equal budgets."""

    said: str
    better: str
    worse: str


CLAIMS = (
    Claim(said="SnapKV keeps more than a window at equal budgets", better="snapkv:25%", worse="window:25%"),
    Claim(said="SnapKV keeps more than chance", better="snapkv:25%", worse="random:25%"),
    Claim(said="AdaKV: budgets per head beat equal ones", better="adakv:25%", worse="snapkv:25%"),
    Claim(said="HeadKV: budgets by what heads retrieve beat equal ones", better="headkv:25%", worse="snapkv:25%"),
    Claim(said="PyramidKV: more for shallow layers beats equal budgets", better="pyramid:25%", worse="snapkv:25%"),
    Claim(said="EMS: merging beats dropping", better="ems:25%", worse="globallocal:25%"),
    Claim(said="LOOK-M: merging beats dropping", better="lookm:25%", worse="textprior:25%"),
    Claim(said="KeyDiff beats the key's norm", better="keydiff:25%", worse="keynorm:25%"),
    Claim(said="Expected attention beats the last window's", better="expected:25%", worse="snapkv:25%"),
    Claim(
        said="More tokens at lower precision beat fewer at full, in equal bytes",
        better="snapkv:1MiB | int4",
        worse="snapkv:1MiB",
    ),
)


def at(names: Sequence[str], *budgets: str) -> tuple[str, ...]:
    """Every name at every budget."""
    return tuple(f"{name}:{budget}" for budget in budgets for name in names)


PARTS = {
    "methods": Part(
        plans=(
            *("full", "truncate:25%", "truncate:10%"),
            *at((*SCORERS, *ALLOCATORS, *FOLDERS), "25%", "10%"),
            *STORES,
            *COMPOSED,
        ),
        tasks=TASKS,
    ),
    "sharing": Part(plans=("full", "pod", "pod(layers='0-1')"), tasks=TASKS),
    "heads": Part(
        plans=("full", *at(("spatten_heads",), "100%", "25%", "10%"), "spatten_heads:25%(heads=0.75)"), tasks=TASKS
    ),
    "claims": Part(
        plans=("full", *dict.fromkeys(plan for claim in CLAIMS for plan in (claim.better, claim.worse))),
        tasks=NEEDLES,
        modes=BOTH,
        contexts=8,
    ),
    "budgets": Part(plans=("full", *at(SIX, "50%", "25%", "10%")), tasks=NEEDLES, modes=BOTH, contexts=4),
    "layerwise": Part(
        plans=("full", *(f"{plan} | layerwise" for plan in at(SIX, "25%", "10%"))),
        tasks=NEEDLES,
        modes=BOTH,
        contexts=4,
    ),
    "lengths": Part(plans=("full", *at(SIX, "10%")), tasks=NEEDLES, lengths=(4096, 8192)),
}


if __name__ == "__main__":
    from benchmarks.quality_page import page

    main(__doc__, PARTS, page, "quality")
