"""What looking entries up, reading under patterns and reading apart cost in quality, on the reference model.

    python -m benchmarks.lookup [-o FOLDER] [--part NAME] [--times N]
    python -m benchmarks.lookup --write

Each part is a run of `farspan eval --recall` in a folder of its own below FOLDER (default: runs/lookup), so whatever
stops it, the same command goes on where it was. `--write` puts the tables into docs/lookup.md, from the parts that are
there. It has few contexts, to be done in under an hour of one core; `--times 8`, into another folder, asks eight times
as many questions in eight times the time.

* `fetch-*`: every method of the family fetch at two or three numbers of entries, by length, beside null baselines that
  hold as many; what it covers of full attention is measured at every step.
* `prefill-*`: patterns of reading beside the dense read; `skim-*`: what reads fewer tokens, told the question.
* `parallel-*`: four pieces or more, read apart, beside the text read together.

Beyond the 8,192 tokens that the model was trained with, positions are YaRN's, at a factor of 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.parts import Part, main
from farspan.measure.record import Mode

TASKS = ("one_needle",)
TRAINED = 8192
FAR = "yarn(factor=8) | "
SINKS, RECENT = 4, 64  # read by every method beside the entries that it fetches
LIKE = f"sinks={SINKS}, recent={RECENT}, read=false"

FETCHED = {
    "topk": "topk:{k}",
    "quest": "quest:{k}",
    "tokenselect": f"tokenselect:{{k}}({LIKE})",
    "recycled": "recycled:{k}",
    "infllm": f"infllm:{{k}}(block=16, {LIKE})",
    "emllm": f"emllm:{{k}}(longest=16, {LIKE})",
    "actqkv": f"actqkv:{{k}}(block=16, {LIKE})",
    "squeezed": "squeezed:{k}(share={share})",
    "magicpig": "magicpig:{k}",
    "landmark": "landmark:{k}(outliers={outliers})",
}
"""Every method with the same sinks and recent entries, blocks small enough for the smallest budget, and ShadowKV's
outliers in proportion to it (its 48 chunks alone are 384 entries)."""

NULLS = {
    "newest": "window:{held} | layerwise",
    "window": "window:{held}",
    "random": "random:{held}",
    "truncate": "truncate:{held}",
}
"""As many entries: the newest of a text that was read in full; what is held while reading; what is read at all."""

PREFILL = {
    "ashape": "ashape(sinks=16, window={eighth})",
    "trianglemix": "trianglemix(sinks=16, window={eighth}, last=64)",
    "verticalslash": "verticalslash(columns={sixteenth}, slashes=4, width={band}, sinks=16, window=64)",
    "dam": "dam(capture={quarter})",
    "moa": "moa(density=0.25, sinks=16, window=64)",
    "coretokens": "coretokens(density=0.15, sinks=16, window={eighth})",
    "truncate": "truncate:50%",
}
SKIM = {"gemfilter": "gemfilter:{k}", "ilre": "ilre:{k}(sinks=16, window={eighth})", "truncate": "truncate:{k}"}
PARALLEL = {
    "concat": "concat(chunk={chunk})",
    "side by side": "ape(chunk={chunk}, temperature=1, scale=1)",
    "ape": "ape(chunk={chunk})",
    "sinks": "sinks(chunk={chunk})",
    "sinks, best piece": "sinks(chunk={chunk}, top=1)",
    "homer": "homer(chunk={quarter})",  # as many merges as four layers allow
    "truncate": "truncate:25%",
}


@dataclass(frozen=True, kw_only=True)
class Named(Part):
    """A part whose plans have names, for its table and for claims; the first is the text read as it is, `full`."""

    named: dict[str, str]


def part(length: int, named: dict[str, str], contexts: int, mode: Mode = "agnostic") -> Named:
    """Plans of one length, placed beyond the trained length where the text is longer."""
    before = FAR if length > TRAINED else ""
    every = {"full": before.removesuffix(" | ") or "full"}
    every |= {name: text if text.startswith("yarn") else before + text for name, text in named.items()}
    plans = tuple(every.values())
    return Named(named=every, plans=plans, tasks=TASKS, lengths=(length,), modes=(mode,), contexts=contexts)


def fetched(length: int, counts: Sequence[int], contexts: int) -> Named:
    """Everything that fetches, and the baselines, at each number of entries."""
    named: dict[str, str] = {}
    for k in counts:
        held, share = k + SINKS + RECENT, 0.05 if length <= TRAINED else 0.0125
        values = {"k": k, "held": held, "share": share, "outliers": k // 64}
        named |= {f"{name} {k}": text.format(**values) for name, text in (NULLS | FETCHED).items()}
    return part(length, named, contexts)


def patterned(length: int, contexts: int) -> Named:
    """Patterns in proportion to the text, and reading it twice where that is no more than 16k tokens."""
    sizes = {"quarter": min(1024, length // 4), "eighth": length // 8, "sixteenth": length // 16}
    named = {name: text.format(**sizes, band=max(16, length // 128)) for name, text in PREFILL.items()}
    if length <= TRAINED:
        named["jrt"] = "jrt" if 2 * length <= TRAINED else "yarn | jrt"
    return part(length, named, contexts)


def skimmed(length: int, counts: Sequence[int], contexts: int) -> Named:
    """What reads `k` tokens that the question chose."""
    named = {f"{n} {k}": text.format(k=k, eighth=length // 8) for k in counts for n, text in SKIM.items()}
    return part(length, named, contexts, "aware")


def apart(length: int, chunk: int, contexts: int) -> Named:
    """Pieces of `chunk` tokens."""
    plans = {name: text.format(chunk=chunk, quarter=length // 4) for name, text in PARALLEL.items()}
    return part(length, plans, contexts)


PARTS: dict[str, Named] = {
    "fetch-2k": fetched(2048, (64, 256), 8),
    "prefill-2k": patterned(2048, 16),
    "skim-2k": skimmed(2048, (256, 512), 8),
    "parallel-2k": apart(2048, 512, 16),
    "fetch-8k": fetched(8192, (64, 256, 1024), 4),
    "prefill-8k": patterned(8192, 8),
    "skim-8k": skimmed(8192, (256, 1024), 4),
    "parallel-8k": apart(8192, 2048, 8),
    "fetch-32k": fetched(32768, (256, 1024), 2),
    "prefill-32k": patterned(32768, 2),
    "parallel-32k": apart(32768, 4096, 2),
    "fetch-64k": fetched(65536, (256,), 1),
}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a paper says of two rows of the parts of one `family`: that `better` answers more than `worse`, or, where it
    `keeps`, no less. `middle`: of facts in the middle half of the text.
    """

    said: str
    family: str
    better: str
    worse: str = "full"
    keeps: bool = False
    middle: bool = False


def fetches(said: str, better: str, worse: str = "full", *, keeps: bool = False) -> Claim:
    """About 256 entries, which every length has."""
    other = worse if worse == "full" else f"{worse} 256"
    return Claim(said=said, family="fetch", better=f"{better} 256", worse=other, keeps=keeps)


def reads(said: str, better: str, worse: str = "full", **how: bool) -> Claim:
    """About patterns."""
    return Claim(said=said, family="prefill", better=better, worse=worse, **how)


def skims(said: str, better: str, worse: str = "full", **how: bool) -> Claim:
    """About tokens that the question chose."""
    return Claim(said=said, family="skim", better=better, worse=worse, **how)


def composes(said: str, better: str, worse: str = "full", **how: bool) -> Claim:
    """About pieces."""
    return Claim(said=said, family="parallel", better=better, worse=worse, **how)


CLAIMS = (
    fetches("Quest: bounds of pages keep full attention's answers", "quest", keeps=True),
    fetches("Quest: bounds of pages find what exact top-k finds", "quest", "topk", keeps=True),
    fetches("TokenSelect: heads' votes for tokens keep full attention's answers", "tokenselect", keeps=True),
    fetches("TokenSelect: tokens beat blocks (InfLLM)", "tokenselect", "infllm"),
    fetches("Recycled Attention: what a full step attended to serves the next ones", "recycled", keeps=True),
    fetches("InfLLM: blocks looked up beat the newest tokens alone", "infllm", "newest"),
    fetches("EM-LLM: events by surprise beat blocks (InfLLM)", "emllm", "infllm"),
    fetches("ActQKV: unusual queries ask better than the mean query (InfLLM)", "actqkv", "infllm"),
    fetches("Squeezed Attention: clusters of keys keep full attention's answers", "squeezed", keeps=True),
    fetches("Squeezed Attention: clusters beat pages of neighbours (Quest)", "squeezed", "quest"),
    fetches("MagicPIG: sampling beats top-k", "magicpig", "topk"),
    fetches("ShadowKV: landmarks of chunks and outliers beat Quest's bounds", "landmark", "quest"),
    reads("TriangleMix: deep layers need no middle, so nothing is lost", "trianglemix", keeps=True),
    reads("A-shape loses what lies in the middle", "full", "ashape", middle=True),
    reads("MInference: columns and slashes lose nothing", "verticalslash", keeps=True),
    reads("MInference: columns and slashes beat A-shape", "verticalslash", "ashape"),
    reads("DAM: observed masks lose nothing", "dam", keeps=True),
    reads("DAM: observed masks beat a fixed one (A-shape)", "dam", "ashape"),
    reads("MoA: spans of heads beat one span for all (A-shape)", "moa", "ashape"),
    reads("TCA-Attention: core tokens beside a window lose nothing", "coretokens", keeps=True),
    reads("JRT: reading twice answers more", "jrt"),
    skims("GemFilter: an early layer finds what the question needs", "gemfilter 256", keeps=True),
    skims("ILRe: one layer, streamed, finds what the question needs", "ilre 256", keeps=True),
    skims("ILRe: the question finds more than the ends of the text hold", "ilre 256", "truncate 256"),
    composes("APE: pieces read apart answer as the text read together", "ape", keeps=True),
    composes("APE: temperature and scale beat pieces merely side by side", "ape", "side by side"),
    composes("Shared sinks beat pieces merely side by side", "sinks", "side by side"),
    composes("HOMER: pieces merged layer by layer keep what the text read together answers", "homer", keeps=True),
    composes("Selecting pieces beats attending to all", "sinks, best piece", "sinks"),
)


if __name__ == "__main__":
    from benchmarks.lookup_page import page

    main(__doc__, PARTS, page, "lookup", recall=True)
