"""How a read shows where it stands: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from farspan.cli.output import bytes_text, counted, is_terminal, note, seconds_text

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from farspan.measure.run import RunProgress
    from farspan.runtime.reader import Progress
    from farspan.searching import Progress as SearchState

EVAL_LINE_EVERY = 15.0
LINE_EVERY = 5.0  # seconds between plain lines; a short read has none


class _Shown:
    """A context manager around work that shows how far it is. Writes to stderr only."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._bar = None if quiet or not is_terminal(sys.stderr) else _bar()
        self._quiet = quiet
        self._last_line = time.perf_counter()

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("loading the model", total=None, facts="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def stage(self, description: str) -> None:
        """What goes on that has no measure."""
        if self._bar is not None:
            self._bar.update(self._task, description=description, total=None, facts="")

    def show(
        self, what: str, done: float, total: float, facts: str, *, of: str = "", every: float = LINE_EVERY
    ) -> None:
        """`done` of `total`, whose unit `of` names."""
        if self._bar is not None:
            self._bar.update(self._task, description=what, total=total, completed=done, facts=facts)
        elif not self._quiet and time.perf_counter() - self._last_line >= every:
            self._last_line = time.perf_counter()
            note(f"{what}: {done / max(1, total):.0%}{of}, {facts}")


class ReadProgress(_Shown):
    """Its `update` is the hook of `Model.read`."""

    def update(self, progress: Progress) -> None:
        """Called after every chunk."""
        facts = (
            f"{progress.done / progress.seconds:,.0f} tokens/s, {bytes_text(progress.held_bytes)} KV held, "
            f"{bytes_text(resident_bytes())} memory"
        )
        self.show("reading", progress.done, progress.total, facts, of=f" of {progress.total:,} tokens")


class ProfileProgress(_Shown):
    """Its `update` is the hook of `Model.profile`."""

    def update(self, done: int, total: int) -> None:
        """Called after every text."""
        self.show("probing", done, total, f"{done} of {total} texts")


class SearchProgress(_Shown):
    """Its `update` is the hook of `search_positions`."""

    def update(self, progress: SearchState) -> None:
        """Called after every judgement."""
        facts = f"{progress.done} of at most {progress.total} judged, best perplexity {progress.best:.2f}"
        self.show("searching", progress.done, progress.total, facts)


class BenchProgress(_Shown):
    """Its `update` is the hook of `measure.bench`."""

    def update(self, done: int, total: int) -> None:
        """Called after every measurement."""
        self.show("measuring", done, total, f"{done} of {total}")


class EvalProgress(_Shown):
    """Its `update` is the hook of `measure.run`."""

    def update(self, progress: RunProgress) -> None:
        """Called after every context under every plan."""
        cell, left = progress.cell, progress.left_seconds
        facts = [counted(progress.samples, "sample")]
        facts += [counted(progress.errors, "error")] if progress.errors else []
        facts += [f"{seconds_text(left)} left"] if left is not None else []
        what = f"{cell.task.id} at {cell.length:,}" if cell is not None else "evaluating"
        self.show(what, progress.done, progress.total, ", ".join(facts), every=EVAL_LINE_EVERY)


def _bar() -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.fields[facts]}"),
        console=Console(stderr=True, highlight=False),
        transient=True,
    )


def resident_bytes() -> int:
    """Memory that this process occupies now (its peak where the system does not tell)."""
    return _status("VmRSS") or peak_resident_bytes()


def peak_resident_bytes() -> int:
    """The most memory that this process has occupied.

    Linux' own mark is preferred to `getrusage`, which counts what a process was before it became this one.
    """
    marked = _status("VmHWM")
    if marked is not None:
        return marked
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024


def _status(name: str) -> int | None:
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
            for line in lines:
                if line.startswith(name + ":"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
