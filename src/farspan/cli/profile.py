"""`farspan profile`: which heads of a model retrieve, measured once and saved for the plans that go by it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from farspan.cli.output import emit, rows, say, seconds_text
from farspan.cli.progress import ProfileProgress
from farspan.cli.session import checked_artefact, load_model
from farspan.heads import FILE

if TYPE_CHECKING:
    from farspan.heads import HeadProfile

SHOWN = 8  # heads, best first


def profile(
    model: str | None = None,
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    length: int | None = None,
    texts: int | None = None,
    seed: int = 0,
    dtype: str | None = None,
    device: str | None = None,
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Measure which attention heads retrieve, and save it for plans such as headkv.

    For example: farspan profile MODEL -o model.heads; then --plan "headkv:10%(profile=model.heads)".

    Parameters
    ----------
    model
        A model's folder or hub id. Default: the embedded model.
    output
        The file to write. Default: model.heads.
    length
        Tokens of each text that is probed. Default: 1024.
    texts
        Texts per kind of probe, four questions each. Default: 8.
    seed
        Other texts for another number.
    dtype
        float32, bfloat16, float16. Default: the model's own.
    device
        Where the model runs, such as cuda. Default: cpu.
    json
        Print the result as one JSON object.
    quiet
        Only warnings and errors.
    """
    target = checked_artefact(output or Path("model" + FILE.suffix), FILE)
    began = time.perf_counter()
    given = {name: value for name, value in (("length", length), ("texts", texts)) if value is not None}
    with ProfileProgress(quiet=quiet) as progress:
        loaded = load_model(model, dtype=dtype, device=device)
        made = loaded.profile(**given, seed=seed, progress=progress.update)
        made.save(target)
    if json:
        emit({"file": str(target), "digest": made.digest, "model": made.model, "layers": made.layers,
              "scores": made.scores, "made": made.made})  # fmt: skip
    elif not quiet:
        say(summary(made, target, time.perf_counter() - began))


def summary(made: HeadProfile, file: Path, seconds: float) -> str:
    """Which heads stand out, for people."""
    table = [("model", made.model), ("probes", f"{made.made['questions']} questions in {seconds_text(seconds)}")]
    for name in ("retrieval", "reasoning"):
        scored = [(s, f"{layer}.{h}") for layer in made.layers for h, s in enumerate(made.row(name, layer))]
        total = sum(score for score, _ in scored) or 1.0
        best = sorted(scored, key=lambda pair: -pair[0])[:SHOWN]
        table.append((name, "  ".join(f"{head} {score / total:.0%}" for score, head in best)))
    table += [("", "layer.head and its share of all heads' scores"), ("file", f"{file}  (#{made.digest})")]
    return rows(table)
