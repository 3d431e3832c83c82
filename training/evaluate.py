"""Measure one or more checkpoints on the same questions, interleaved: `python -m training.evaluate --model new=DIR`.

Verdicts are appended to `verdicts.jsonl` one by one and what is there is not measured again, so an evaluation can be
stopped and resumed, or split by `--lengths`. `python -m training.card` turns the directory into the model card.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, PreTrainedModel

from farspan.reference.corpus import evaluation_files
from training.cardparts import AIMS
from training.judge import MODES, judge
from training.probes import CELLS, Bench, probes
from training.source import code_source
from training.survey import perplexity_by_position, retrieval_heads

OUT = Path(__file__).resolve().parent / "out" / "evaluation"
PACKED = Path(__file__).resolve().parent.parent / "src" / "farspan" / "reference" / "model"
BASELINE_LENGTH = 2048
SHARES = {1024: 1.0, 2048: 1.0, 4096: 1.0, 8192: 0.4}
"""8k costs three times a 4k reading; its intervals are wider for it."""
AIMED = 3.2
"""Where the card states an aim: two hundred questions or more."""


def load(directory: Path, device: str = "cpu") -> PreTrainedModel:
    """A checkpoint in the precision it is shipped in."""
    model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16, local_files_only=True)
    return model.to(device).eval()


def plan(cells: list[str], lengths: list[int], share: float) -> Iterator[tuple[str, int, float, tuple[str, ...]]]:
    """(cell, length, share of the documents, modes to read them in)."""
    for length in lengths:
        for name in cells:
            compared = length == BASELINE_LENGTH and name != "count and list"
            aimed = any((task, at) == (name, length) for task, at, _ in AIMS)
            part = AIMED if aimed else SHARES.get(length, 1.0)
            yield name, length, share * part, tuple(MODES) if compared else ("full",)


def run(
    models: dict[str, PreTrainedModel],
    bench: Bench,
    cells: list[str],
    lengths: list[int],
    share: float,
    out: Path,
    *,
    baselines: bool = True,
) -> None:
    """Judge every model on every probe that `out`/verdicts.jsonl does not hold yet."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "verdicts.jsonl"
    done = {_key(json.loads(line)) for line in file.read_text().splitlines()} if file.is_file() else set()
    for cell, length, part, modes in plan(cells, lengths, share):
        started = time.monotonic()
        for index, probe in enumerate(probes(bench, cell, length, share=part)):
            for name, model in models.items():
                for mode in modes if baselines and name == next(iter(models)) else ("full",):
                    head = {"model": name, "mode": mode, "cell": cell, "probe": index, "length": length}
                    if _key(head) in done:
                        continue
                    verdicts = judge(model, bench.tokenizer, probe, MODES[mode], seed=index)
                    with file.open("a") as sink:
                        for verdict in verdicts:
                            sink.write(json.dumps(head | asdict(verdict)) + "\n")
        print(f"{cell} at {length}: {time.monotonic() - started:.0f} s", flush=True)


def _key(record: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(record[name] for name in ("model", "mode", "cell", "probe", "length"))


def survey(models: dict[str, PreTrainedModel], bench: Bench, out: Path, windows: int) -> None:
    """Perplexity and heads of every model, into `out`/survey.json."""
    found = {
        name: {
            "perplexity": perplexity_by_position(model, bench.source, bench.tokenizer, windows),
            "heads": retrieval_heads(model, bench),
        }
        for name, model in models.items()
    }
    (out / "survey.json").write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", action="append", metavar="NAME=DIR", help="repeatable; the first one also runs the baselines"
    )
    parser.add_argument("--tokenizer", type=Path, default=PACKED / "tokenizer.json")
    parser.add_argument("--lengths", default="1024,2048,4096,8192")
    parser.add_argument("--cells", default=",".join(CELLS), help="names, separated by commas")
    parser.add_argument("--no-baselines", action="store_true", help="full cache only")
    parser.add_argument(
        "--share",
        type=float,
        default=1.0,
        help="of the documents of a full evaluation",
    )
    parser.add_argument("--windows", type=int, default=8, help="8k windows for the perplexity; 0 skips the survey")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    named = [each.split("=", 1) for each in given.model or [f"packed={PACKED}"]]
    models = {name: load(Path(directory), given.device) for name, directory in named}
    tokenizer = Tokenizer.from_file(str(given.tokenizer))
    bench = Bench.evaluation(tokenizer, code_source(evaluation_files(), tokenizer))
    cells = [name for name in given.cells.split(",") if name]
    lengths = [int(each) for each in given.lengths.split(",") if each]
    run(models, bench, cells, lengths, given.share, given.out, baselines=not given.no_baselines)
    if given.windows:
        survey(models, bench, given.out, given.windows)


if __name__ == "__main__":
    main()
