"""JRT-Prompt: just read twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from farspan.errors import PlanError
from farspan.methods.compress.base import Compressor
from farspan.registry import Paper
from farspan.text.document import Segment


@dataclass(frozen=True, kw_only=True)
class Jrt(Compressor):
    """Read the text `times` times, so that every token of the last reading has seen all of it.

    Source: Arora et al. 2024, "Just read twice" (JRT-Prompt): whatever comes first in a text is read without knowing
    what will be asked of it, and models with little memory then keep the wrong things. The opposite of compression: as
    many times the tokens, entries and positions, and attention grows with their square. All readings are held unless
    the plan drops some; tokens of each know where in the text they stand. The question comes once, after the last.
    """

    paper: ClassVar[Paper | None] = Paper("JRT", arxiv="2407.05483", id=105)

    times: int = 2

    def check(self) -> None:
        """More than once, and all of it."""
        if self.budget is not None:
            raise PlanError(f"it reads all of a text, and takes no budget: write {self.name} or {self.name}(times=3)")
        if self.times < 2:
            raise PlanError(f"times={self.times} is no rereading; give 2 or more, or leave {self.name} out")

    @property
    def passes(self) -> int:
        """See Compressor."""
        return self.times

    def reads(self, tokens: int) -> int:
        """-> all of them, again and again."""
        return self.times * tokens

    def compress(self, segments: Sequence[Segment], question: str | None, budget: int) -> list[Segment]:
        """-> every segment in order, and all of them again."""
        return list(segments) * self.times
