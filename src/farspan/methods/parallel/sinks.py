"""Shared sinks and selection: what lowers the entropy of attention over pieces that were read apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from farspan.cache.pieces import Pieces
from farspan.errors import PlanError
from farspan.methods.parallel.base import Parallel, Standing, side_by_side
from farspan.registry import Paper


@dataclass(frozen=True, kw_only=True)
class Sinks(Parallel):
    """Read every piece behind the same first tokens, and attend to those few pieces that get most attention.

    Read apart, every piece has an attention sink of its own, and a query spreads over all of them. Here each is read
    behind the template's opening and the text's first `tokens` tokens, which are kept once. Of the pieces a token
    attends to the `top` ones that its heads together would give most attention to, layer by layer (0: all); selecting
    reads every piece. All pieces stand at the same positions.

    Source: Zhang et al. 2024, "Attention Entropy is a Key Factor", shared sinks and selective attention, two methods
    that it combines. The paper's shared prefix is an instruction and does as well with any tokens; it keeps 2 pieces by
    default, more for examples and fewer for needles. It scores a piece by its five largest shares of attention, summed
    over heads and over the tokens of a question; this by all of its shares, and every token chooses for itself, as it
    must while answering. Contexts that were read on their own have the template's opening in common and nothing else:
    then `tokens` has nothing to act on.
    """

    paper: ClassVar[Paper | None] = Paper(
        "Attention Entropy is a Key Factor: An Analysis of Parallel Context Encoding", arxiv="2412.16545", id=113
    )
    conflicts: ClassVar[tuple[str, ...]] = ("fetch", "prefill")

    tokens: int = 4
    top: int = 0

    def check(self) -> None:
        """Counts."""
        super().check()
        for name, value in (("tokens", self.tokens), ("top", self.top)):
            if value < 0:
                raise PlanError(f"{name}={value} is no count; give 0 or more")

    def shared(self) -> int:
        """The text's first tokens."""
        return self.tokens

    def stand(self, first: int, lengths: Sequence[int]) -> Standing:
        """Side by side."""
        return side_by_side(first, lengths)

    def pieces(self, ranges: Sequence[tuple[int, int]]) -> Pieces:
        """The best of them."""
        return Pieces(tuple(ranges), top=self.top)
