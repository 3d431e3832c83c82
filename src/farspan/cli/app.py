"""The commands together, and how each of them may end: results, one clear message, or an interrupt."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import traceback
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter

import farspan
from farspan.cli import (
    ask,
    bench,
    compose,
    demo,
    doctor,
    eval,
    inspect,
    ls,
    plan,
    profile,
    read,
    report,
    search_positions,
    verify,
)
from farspan.cli.output import OutputError, flush, is_terminal, note, style
from farspan.cli.session import STDIN
from farspan.errors import FarspanError

DEBUG = "--debug"
# torch then asks for large pages: entries that lie far apart are found in fewer steps. Read when torch first allocates.
LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"
DEBUG_VARIABLE = "FARSPAN_DEBUG"
INTERRUPTED = 130

app = App(
    name="farspan",
    help="Read a long context once, keep what matters, answer many questions about it.",
    help_epilogue=(
        "Without -m the embedded reference model answers. Results go to stdout, progress and costs to stderr. "
        "Exit codes: 0 done, 1 failed, 2 change what was asked, 130 interrupted. "
        f"With {DEBUG} or {DEBUG_VARIABLE}=1 an error shows its traceback."
    ),
    help_format="plaintext",
    version=farspan.__version__,
    version_flags=["--version"],
    default_parameter=Parameter(negative=(), show_default=False),  # a switch has no --no- twin
    suppress_keyboard_interrupt=False,
)
COMMANDS = (
    (read.read, "DOC..."),
    (ask.ask, "FILE QUESTION..."),
    (compose.compose, "FILE..."),
    (inspect.inspect, "FILE"),
    (eval.eval, "[MODEL]"),
    (report.report, "RUN..."),
    (bench.bench, "[MODEL]"),
    (profile.profile, "[MODEL]"),
    (search_positions.search_positions, "[MODEL]"),
    (ls.ls, "[KIND]"),
    (plan.plan, "PLAN"),
    (doctor.doctor, ""),
    (verify.verify, "[DIR...]"),
    (demo.demo, ""),
)
for place, (command, arguments) in enumerate(COMMANDS):
    usage = " ".join(filter(None, ("Usage: farspan", command.__name__.replace("_", "-"), arguments, "[OPTIONS]")))
    app.command(command, usage=usage, help_epilogue="", sort_key=place)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (`sys.argv` unless given) -> the exit code. Never raises."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if DEBUG in options:
        arguments.remove(DEBUG)
        debug = True
    os.environ.setdefault(LARGE_PAGES, "1")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that cannot show a character must not cost the answer
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = _run(arguments)
        flush()
        return code
    except BaseException as error:
        if debug:
            traceback.print_exc()
        return _explained(error, debug)


def _run(arguments: list[str]) -> int:
    try:
        # cyclopts takes a lone hyphen for an option that nobody declared
        tokens = [STDIN if argument == "-" else argument for argument in arguments]
        result = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    return result if isinstance(result, int) else 0


def _explained(error: BaseException, debug: bool) -> int:
    """Say on stderr what went wrong -> the exit code."""
    match error:
        case KeyboardInterrupt():
            after_echo = "\n" if is_terminal(sys.stderr) else ""  # the terminal has just shown ^C
            note(after_echo + (str(error) or "interrupted"))
            return INTERRUPTED
        case BrokenPipeError():
            _silence_stdout()
            return 1
        case CycloptsError():
            return _error(" ".join(str(error).split()), 2)
        case FarspanError():
            if isinstance(error, OutputError):
                _silence_stdout()
            return _error(str(error), error.exit_code)
        case OSError() if error.errno == errno.ENOSPC:
            _silence_stdout()
            return _error("no space is left on the disk", 1)
    if _is_out_of_memory(error):
        return _error(
            "out of memory. Hold less (--plan 'snapkv:2048 | int8'), read in smaller chunks "
            "(--plan 'stream(chunk=256)'), or use a smaller model or --dtype bfloat16",
            1,
        )
    how = "" if debug else f" Run it again with {DEBUG} to see where."
    return _error(f"internal error, please report it: {type(error).__name__}: {error}.{how}", 1)


def _error(message: str, code: int) -> int:
    with contextlib.suppress(OSError):
        note(f"{style('error:', 'red')} {message}")
    return code


def _is_out_of_memory(error: BaseException) -> bool:
    allocator = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or allocator


def _silence_stdout() -> None:
    """Nobody reads it any more: keep the interpreter from trying again when it exits."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
