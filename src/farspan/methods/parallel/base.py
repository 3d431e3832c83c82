"""The contract of a parallel method: where pieces that were read apart stand, and how they are attended to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from farspan.cache.pieces import Pieces
from farspan.errors import PlanError
from farspan.registry import Method


class Standing(NamedTuple):
    """The position of each piece's first token, and of the first token after all pieces."""

    positions: tuple[int, ...]
    next_position: int


@dataclass(frozen=True, kw_only=True)
class Parallel(Method):
    """Pieces of a text are read apart: each sees what stands before all of them, and itself.

    When a text is read, it is cut into pieces of at most `chunk` tokens, none across documents. Contexts that were read
    on their own are pieces as they are.
    """

    family: ClassVar[str] = "parallel"
    slot: ClassVar[str] = "parallel"

    chunk: int = 2048

    def check(self) -> None:
        """Raise PlanError for an empty piece."""
        if self.chunk < 1:
            raise PlanError(f"chunk={self.chunk} holds no token; give 1 or more")

    def shared(self) -> int:
        """How many of a text's first tokens every piece is to see, besides the template's."""
        return 0

    def stand(self, first: int, lengths: Sequence[int]) -> Standing:
        """Where pieces of so many positions stand, of which the first free one is `first`."""
        raise TypeError(f"{type(self).__name__} defines no stand(first, lengths)")

    def pieces(self, ranges: Sequence[tuple[int, int]]) -> Pieces:
        """How tokens that follow attend to pieces [start, stop)."""
        return Pieces(tuple(ranges))


def one_after_another(first: int, lengths: Sequence[int]) -> Standing:
    """Positions as if the pieces had been read in this order."""
    positions = []
    for length in lengths:
        positions.append(first)
        first += length
    return Standing(tuple(positions), first)


def side_by_side(first: int, lengths: Sequence[int]) -> Standing:
    """All at the same positions; the longest one says where the next token stands."""
    return Standing((first,) * len(lengths), first + max(lengths, default=0))
