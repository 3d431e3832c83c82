"""`farspan bench`: what plans cost in time and memory, beside the same model under plain transformers."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from farspan.cli.eval_table import aligned
from farspan.cli.output import bytes_text, emit, note, rows, say, seconds_text
from farspan.cli.progress import BenchProgress
from farspan.cli.session import load_model
from farspan.errors import UsageError

if TYPE_CHECKING:
    from farspan.measure.bench import Bench, Speed


def bench(
    model: str | None = None,
    /,
    *,
    plan: list[str] | None = None,
    length: str | None = None,
    tokens: int | None = None,
    repeats: int | None = None,
    dtype: str | None = None,
    device: str | None = None,
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Measure plans' speed and memory beside the same model under plain transformers.

    All of them read the same source code and answer the same question, in turn; what else runs meanwhile counts too.

    Parameters
    ----------
    model
        A model's folder or hub id. Default: the embedded model.
    plan
        What to measure, or a .toml file; may be repeated. Default: full.
    length
        Tokens to read, such as 8k. Default: 4k.
    tokens
        Tokens of the answer. Default: 64.
    repeats
        Rounds that count; one more comes before. Default: 3.
    dtype
        float32, bfloat16, float16. Default: the model's own.
    device
        Where the model runs, such as cuda. Default: cpu.
    json
        Print the result as one JSON object.
    quiet
        Only warnings and errors.
    """
    from farspan.measure.settings import parse_lengths
    from farspan.plan import Plan

    plans = [Plan.parse(text) for text in plan or ["full"]]
    if len(set(plans)) < len(plans):
        raise UsageError("a plan is given twice; leave one out")
    wanted, *more = parse_lengths(length or "4k")
    if more:
        raise UsageError(f"--length {length} names several; bench measures one at a time")
    given = {name: value for name, value in (("answer", tokens), ("repeats", repeats)) if value is not None}
    with BenchProgress(quiet=quiet) as progress:
        loaded = load_model(model, dtype=dtype, device=device)
        from farspan.measure.bench import bench as measured

        found = measured(loaded, plans, tokens=wanted, **given, progress=progress.update)
    if json:
        emit(asdict(found))
        return
    if not found.same_answer:
        note("note: full answered otherwise than transformers: somewhere two tokens were all but equally likely")
    say(table(found))


def table(found: Bench) -> str:
    """Ratios first: how many times as fast as transformers, and what share of its bytes; then what was measured."""
    facts = [
        ("read", f"{found.tokens:,} tokens of source code; {found.answer} tokens answered; median of {found.repeats}"),
        ("on", ", ".join(str(found.environment[name]) for name in ("cpu", "device", "dtype"))),
    ]
    speeds = (found.peer, *found.plans)
    ratios = [["times as fast", "read", "first token", "each token", "of its bytes"]]
    ratios += [[speed.name, *_ratios(speed, found.peer)] for speed in speeds]
    measured = [["measured", "read", "first token", "each token", "held", "peak"]]
    measured += [[speed.name, *_measured(speed)] for speed in speeds]
    return "\n\n".join([rows(facts), aligned(ratios), aligned(measured)])


def _ratios(speed: Speed, peer: Speed) -> list[str]:
    names = ("read_seconds", "first_token_seconds", "token_seconds")
    return [
        *(f"{getattr(peer, name) / getattr(speed, name):.2f}" for name in names),
        f"{speed.held_bytes / peer.held_bytes:.0%}",
    ]


def _measured(speed: Speed) -> list[str]:
    return [
        seconds_text(speed.read_seconds),
        seconds_text(speed.first_token_seconds),
        f"{speed.token_seconds * 1000:.2f} ms",
        bytes_text(speed.held_bytes),
        bytes_text(speed.peak_bytes),
    ]
