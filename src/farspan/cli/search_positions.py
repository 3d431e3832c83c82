"""`farspan search-positions`: how much slower each rotary pair should turn, searched on a text of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from farspan.cli.output import emit, rows, say
from farspan.cli.progress import SearchProgress
from farspan.cli.session import checked_artefact, load_model
from farspan.ropes import FILE

if TYPE_CHECKING:
    from farspan.ropes import RopeFactors


def search_positions(
    model: str | None = None,
    /,
    *,
    text: Path,
    length: str,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    population: int | None = None,
    generations: int | None = None,
    seed: int = 0,
    dtype: str | None = None,
    device: str | None = None,
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Search how to place tokens past the trained length, for plans with longrope.

    For example: farspan search-positions MODEL --text book.txt --length 32k -o model.rope; then --plan
    "longrope(factors=model.rope)". An interrupted search goes on with the same command.

    Parameters
    ----------
    model
        A model's folder or hub id. Default: the embedded model.
    text
        A text like those to be read, of at least that length.
    length
        Tokens to search for, such as 32k.
    output
        The file to write. Default: model.rope.
    population
        Individuals that live at a time. Default: 16.
    generations
        How often the worse half is replaced. Default: 8.
    seed
        Other draws for another number.
    dtype
        float32, bfloat16, float16. Default: the model's own.
    device
        Where the model runs, such as cuda. Default: cpu.
    json
        Print the result as one JSON object.
    quiet
        Only warnings and errors.
    """
    from farspan import searching
    from farspan.measure.settings import parse_lengths
    from farspan.text import load_documents

    target = checked_artefact(output or Path("model" + FILE.suffix), FILE)
    journal = target.with_name(target.name + ".part")
    words = "\n\n".join(document.text for document in load_documents([str(text)]))
    given = {"population": population, "generations": generations}
    with SearchProgress(quiet=quiet) as progress:
        loaded = load_model(model, dtype=dtype, device=device)
        made = searching.search_positions(
            loaded,
            words,
            parse_lengths(length)[-1],
            **{name: value for name, value in given.items() if value is not None},
            seed=seed,
            journal=journal,
            progress=progress.update,
        )
        made.save(target)
    journal.unlink(missing_ok=True)
    if json:
        emit({"file": str(target), "digest": made.digest, "model": made.model, "length": made.length,
              "factors": made.factors, "unscaled": made.unscaled, "made": made.made})  # fmt: skip
    elif not quiet:
        say(summary(made, target))


def summary(made: RopeFactors, file: Path) -> str:
    """What was found, for people."""
    found = made.made
    return rows(
        [
            ("model", made.model),
            ("length", f"{made.length:,} tokens, {made.length / made.trained:.3g} times the trained {made.trained:,}"),
            ("perplexity", f"{found['perplexity']:.2f} of the later half; with YaRN's {found['yarn_perplexity']:.2f}"),
            ("factors", "  ".join(f"{factor:g}" for factor in made.factors)),
            ("unscaled", f"the first {made.unscaled} tokens"),
            ("file", f"{file}  (#{made.digest})"),
        ]
    )
