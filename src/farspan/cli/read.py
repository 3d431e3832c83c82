"""`farspan read`: documents in, a context file out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from farspan.cli.output import bytes_text, counted, emit, rows, say, seconds_text, warn
from farspan.cli.progress import ReadProgress, peak_resident_bytes
from farspan.cli.session import STDIN, SUFFIX, checked_output, load_model
from farspan.errors import DocumentError
from farspan.plan import Plan
from farspan.text import Document, load_documents

if TYPE_CHECKING:
    from farspan.context import Context


def read(
    *documents: Annotated[str, Parameter(name="DOC")],
    model: Annotated[str | None, Parameter(name=["--model", "-m"])] = None,
    plan: str | None = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    probe: str | None = None,
    length: int | None = None,
    dtype: str | None = None,
    device: str | None = None,
    weights: str | None = None,
    codec: str | None = None,
    level: int | None = None,
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Read documents once and save what the plan keeps.

    A context file that is already there is replaced only once the new one is complete.
    A file that is no context is never replaced, and an interrupted read leaves nothing.

    Parameters
    ----------
    documents
        Files, globs, folders, or - for standard input.
    model
        A model's folder or hub id. Default: the embedded model.
    plan
        What to keep, such as "snapkv:2048 | int8". Default: full.
    output
        The context file. Default: the first document's name.
    probe
        A question that decides what matters (query-aware).
    length
        Positions to decide for. Default: tokens read + 4096.
    dtype
        float32, bfloat16, float16. Default: the model's own.
    device
        Where the model runs, such as cuda. Default: cpu.
    weights
        int8 or packed, for faster answers; questions use the same. Default: as they are.
    codec
        Write the entries coded, in fewer bytes and not exactly: cachegen.
    level
        Of the codec: 0, nearest to the original, to 3, smallest. Default: 1.
    json
        Print the result as one JSON object.
    quiet
        Only warnings and errors.
    """
    if not documents:
        raise DocumentError("no document given; name files, folders or globs, or - for standard input")
    if output is not None:
        checked_output(output, documents)
    texts = load_documents(["-" if source == STDIN else source for source in documents])
    chosen = Plan.parse(plan)
    if codec is not None or level is not None:  # now, not after a long read
        from farspan.cache.codec import checked_level

        checked_level(codec, level)
    target = output if output is not None else checked_output(default_output(documents, texts), documents)
    saved = False
    try:
        with ReadProgress(quiet=quiet) as progress:
            loaded = load_model(model, dtype=dtype, device=device, weights=weights)
            progress.stage("starting")
            context = loaded.read(texts, chosen, probe=probe, length=length, progress=progress.update)
            progress.stage(f"writing {target}")
            context.save(target, codec=codec, level=level)
            saved = True
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted: {target} was {'' if saved else 'not '}written") from None
    if json:
        emit(described(context, target))
    elif quiet:
        if context.beyond_trained:
            warn(beyond(context.seen, context.model.trained_length))
    else:
        say(summary(context, target))


def default_output(sources: tuple[str, ...], texts: list[Document]) -> Path:
    """Named after the first folder or document, in the current folder."""
    first = Path(sources[0])
    if first.is_dir():
        name = first.resolve().name or "context"
    else:
        name = "stdin" if sources[0] == STDIN else Path(texts[0].source).stem
    return Path(name + SUFFIX)


def beyond(tokens: int, trained: int | None) -> str:
    """The sentence that every result beyond the trained length carries."""
    return f"{tokens:,} tokens are beyond the {trained or 0:,} that the model was trained on: expect wrong answers"


def described(context: Context, file: Path) -> dict[str, Any]:
    """What was read, held and written, for programs."""
    cost = context.cost
    return {
        "seen": context.seen,
        "held": context.held,
        "held_bytes": context.held_bytes,
        "elsewhere_bytes": context.elsewhere_bytes,
        "full_bytes": context.full_bytes,
        "peak_bytes": cost.peak_bytes,
        "stated_peak_bytes": cost.stated_peak_bytes,
        "seconds": cost.seconds,
        "tokens_per_second": cost.tokens / cost.seconds,
        "plan": str(context.plan),
        "plan_hash": context.plan.hash,
        "model": context.model.path,
        "file": str(file),
        "file_bytes": file.stat().st_size,
        "trained_length": context.model.trained_length,
        "beyond_trained": context.beyond_trained,
        "rss_peak_bytes": peak_resident_bytes(),
        "documents": context.tokens.to_json()["documents"],
    }


def summary(context: Context, file: Path) -> str:
    """What was read, held and written, for people."""
    cost, seen = context.cost, context.seen
    documents = counted(len({part.source for part in context.tokens.segments()}), "document")
    table = [
        ("seen", f"{seen:,} tokens of {documents}, in {seconds_text(cost.seconds)} "
                 f"({cost.tokens / cost.seconds:,.0f} tokens/s)"),
        ("held", f"{context.held:,.0f} entries per head"),
        ("bytes", held_of_full(context.held_bytes, context.full_bytes) + f", {bytes_text(cost.peak_bytes)} at the peak "
                  f"(stated: {bytes_text(cost.stated_peak_bytes)})"),
        ("memory", f"{bytes_text(peak_resident_bytes())} at the peak, model and libraries included"),
        ("plan", f"{context.plan}  ({context.plan.hash})"),
        ("model", context.model.path),
        ("file", f"{file}, {bytes_text(file.stat().st_size)}"),
    ]  # fmt: skip
    if context.elsewhere_bytes:
        table.insert(3, ("offloaded", f"{bytes_text(context.elsewhere_bytes)} of KV, brought when it is attended to"))
    if context.beyond_trained:
        table.append(("warning", beyond(seen, context.model.trained_length)))
    return rows(table)


def held_of_full(held: int, full: int) -> str:
    """`4.3 MiB of KV, full is 617 MiB (143 times as much)`."""
    ratio = full / held if held else 1.0
    return f"{bytes_text(held)} of KV; full is {bytes_text(full)} ({ratio:.{1 if ratio < 100 else 0}f}x)"
