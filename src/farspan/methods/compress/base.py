"""The contract of a compressor: segments in, fewer or shorter segments out, provenance kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from farspan.budget import Budget
from farspan.errors import PlanError
from farspan.registry import Method
from farspan.text.document import Segment


@dataclass(frozen=True, kw_only=True)
class Compressor(Method):
    """Which segments of the text are read at all, decided before reading."""

    family: ClassVar[str] = "compress"
    slot: ClassVar[str] = "compress"
    access: ClassVar = "text"

    budget: Budget | None = None
    """Tokens to read; a share is a share of the tokens given."""

    def check(self) -> None:
        """A compressor needs to know how many tokens may be read."""
        if self.budget is None or self.budget.kind == "bytes":
            given = "none" if self.budget is None else str(self.budget)
            raise PlanError(f"it takes a budget of tokens, not {given}: write {self.name}:4096 or {self.name}:25%")

    @property
    def passes(self) -> int:
        """How many times the text is read."""
        return 1

    def reads(self, tokens: int) -> int:
        """How many tokens of a text of so many are read at most."""
        assert self.budget is not None, f"{self.name} has a budget"
        return min(tokens, self.budget.resolve(tokens=tokens))

    def compress(self, segments: Sequence[Segment], question: str | None, budget: int) -> list[Segment]:
        """segments in order of reading -> parts of them, in order, of at most `budget` tokens together; once for each
        of `passes`.
        """
        raise TypeError(f"{type(self).__name__} defines no compress(segments, question, budget)")
