"""Benchmarks of quality: parts, each a run of `farspan eval` in a folder of its own, that any interruption resumes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from farspan.loading import load
from farspan.measure.local import LocalModel
from farspan.measure.record import Mode
from farspan.measure.run import RunProgress, run
from farspan.measure.settings import Settings, chosen_tasks, fitted
from farspan.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Part:
    """One run of tasks of the suite `recall`. `contexts` are per task and length; each is asked eight questions."""

    plans: tuple[str, ...]
    tasks: tuple[str, ...]
    lengths: tuple[int, ...] = (2048,)
    modes: tuple[Mode, ...] = ("agnostic",)
    contexts: int = 8

    def settings(self, times: int = 1) -> Settings:
        """For the runner, with `times` as many contexts."""
        return fitted(
            Settings(
                plans=tuple(map(Plan.parse, self.plans)),
                tasks=tuple(chosen_tasks([f"recall/{name}" for name in self.tasks], [])),
                lengths=self.lengths,
                samples=self.contexts * times,
                modes=self.modes,
            )
        )


def main(
    told: str | None, parts: Mapping[str, Part], page: Callable[[Path], str], name: str, *, recall: bool = False
) -> None:
    """Run the parts that are asked for, all without one, or write docs/`name`.md of those that are there."""
    parser = argparse.ArgumentParser(description=told, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("runs") / name)
    parser.add_argument("--part", action="append", choices=list(parts), default=None)
    parser.add_argument("--times", type=int, default=1, help="so many times the contexts, in a folder of its own")
    parser.add_argument("--write", action="store_true", help=f"put the tables into docs/{name}.md, and run nothing")
    given = parser.parse_args()
    if given.write:
        if not any((given.output / each / "run.json").is_file() for each in parts):
            parser.error(f"{given.output} holds no run of any part; make some first, without --write")
        (Path("docs") / f"{name}.md").write_text(page(given.output), encoding="utf-8")
        return
    subject = LocalModel(load(), recall=recall)
    for each in given.part or parts:
        tally = run(parts[each].settings(given.times), subject, given.output / each, progress=_Told(each))
        print(f"\n{each}: {len(tally.keys):,} samples, {tally.errors} errors", file=sys.stderr)


class _Told:
    """One line that is kept up to date."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, progress: RunProgress) -> None:
        left = "" if progress.left_seconds is None else f", {progress.left_seconds / 60:.0f} min left"
        print(
            f"\r{self.name}: {progress.done / progress.total:.1%}, {progress.samples:,} samples{left}   ",
            end="",
            file=sys.stderr,
            flush=True,
        )
