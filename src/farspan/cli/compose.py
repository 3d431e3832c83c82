"""`farspan compose`: context files in, one that is asked about all of them out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from farspan.cli.ask import open_context
from farspan.cli.output import emit, note, say
from farspan.cli.read import described, summary
from farspan.cli.session import checked_output
from farspan.errors import UsageError


def compose(
    *files: Annotated[str, Parameter(name="FILE")],
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    plan: str | None = None,
    model: Annotated[str | None, Parameter(name=["--model", "-m"])] = None,
    device: str | None = None,
    json: bool = False,
) -> None:
    """Put contexts that were read apart together, to be asked about all of them.

    The documents are not needed any more. The files that are put together stay as they are.

    Parameters
    ----------
    files
        Context files, written by farspan read with one model, in the order in which they shall stand.
    output
        The context file to write.
    plan
        How they go together: a method of the family parallel. Default: concat.
    model
        Where the model is now. Default: where it was then.
    device
        Where the model runs, such as cuda. Default: cpu.
    json
        Print the result as one JSON object.
    """
    if not files:
        raise UsageError("no context was given; name files that farspan read wrote, and the one to write with -o")
    if output is None:
        raise UsageError("-o is missing; name the context file to write, such as -o all.ctx")
    checked_output(output)
    first = open_context(files[0], model, device)
    loaded = first.model
    context = loaded.compose([first, *(loaded.open(file) for file in files[1:])], plan)
    context.save(output)
    if context.cost.repacked:
        note(f"{context.cost.repacked:,} packed entries had to move and were packed anew, which loses a little more")
    if json:
        emit({**described(context, output), "repacked": context.cost.repacked})
    else:
        say(summary(context, output))
