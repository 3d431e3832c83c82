"""What compressors share that run a model's first layers over a text to choose the tokens worth reading."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from farspan.cache import LayerCache
from farspan.errors import PlanError
from farspan.methods.compress.base import Compressor
from farspan.methods.prefill.base import Prefill


@dataclass(frozen=True, kw_only=True, eq=False)
class Skimmed:
    """One layer after a text has passed those below, and who asks there."""

    queries: Tensor
    """[Hq, W, D], after rotation: the last W of the question, or of the text where no question was lent."""
    positions: Tensor
    """[W] int32, consecutive."""
    scaling: float
    held: LayerCache
    """Every token's key; a template's opening stands before the text, a question behind it."""
    first: int
    """Position of the text's first token."""
    tokens: int
    """Tokens of the text."""


@dataclass(frozen=True, kw_only=True)
class Skimmer(Compressor):
    """Runs the layers up to `layer` over the text, and lets what a question says to the keys there choose what is read.

    The chosen tokens are read anew, in order and as one text, by the whole model; `probe` is the question, and without
    one the end of the text asks. While it skims, these layers hold the whole text: that comes before the read, and is
    not in the peak that the read states. A text within the budget is read as it is.
    """

    access: ClassVar = "internals"

    layer: int | None = None

    def check(self) -> None:
        """Layers are counted from 0."""
        super().check()
        if self.layer is not None and self.layer < 0:
            raise PlanError(f"layer={self.layer} is no layer; they are counted from 0")

    def asks(self, layers: int) -> int:
        """The layer whose keys are asked, in a model of so many."""
        raise TypeError(f"{type(self).__name__} defines no asks(layers)")

    def observes(self) -> int:
        """How many of the last queries it wants to see."""
        return 1

    def below(self) -> Prefill | None:
        """The pattern under which the text passes the layers, None for all pairs."""
        return None

    def choose(self, skimmed: Skimmed, budget: int) -> Tensor:
        """-> [n] indices of the text's tokens to read, ascending, at most `budget`."""
        raise TypeError(f"{type(self).__name__} defines no choose(skimmed, budget)")
