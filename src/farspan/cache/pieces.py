"""Sequences that were read apart and stand side by side: which tokens are whose, and how they got there.

An entry is known by its token's number in the whole. Where a token *stands* is another thing: pieces that share
positions stand at the same ones, and then the next position lies below the number of tokens seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from farspan.cache.sequence import Event


class Pieces(NamedTuple):
    """Which tokens were read apart, piece by piece as [start, stop), and how later tokens attend to them.

    Scores of a piece's entries are divided by `temperature`; what the pieces amount to together, exp(lse), is raised to
    the power of `scale` times `temperature` before it meets the rest; of a layer's heads together, each token sees only
    the `top` pieces that get most of its attention (0: all).
    """

    ranges: tuple[tuple[int, int], ...]
    temperature: float = 1.0
    scale: float = 1.0
    top: int = 0

    @property
    def plain(self) -> bool:
        """True where they are attended to like anything else."""
        return self.temperature == self.scale == 1.0 and not 0 < self.top < len(self.ranges)


class Part(NamedTuple):
    """A sequence that became a piece: `ids` and `log` are its own, its newest tokens stand `lag` positions before their
    number; its tokens from `start` on are token `at` and later of the whole, and their keys were turned by `move`
    positions (in layers with a sliding window, to stand one after another up to the next position).
    """

    ids: Tensor
    log: tuple[Event, ...]
    lag: int
    start: int
    at: int
    move: int


class Composed(NamedTuple):
    """From `time` (tokens of all parts) on, these parts stand side by side; the tokens that follow stand `lag`
    positions before their number.
    """

    time: int
    lag: int
    parts: tuple[Part, ...]
    pieces: Pieces
