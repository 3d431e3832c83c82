"""The contract of a positions method: frequencies for a longer text from those that a model was trained with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from farspan.errors import PlanError
from farspan.registry import Method


@dataclass(frozen=True, kw_only=True, eq=False)
class Rope:
    """The rotary positions of one kind of layers: pair i of n turns by `inverse[i]` radians from token to token."""

    inverse: Tensor
    """[n] float32, fastest first; above zero."""
    scale: float = 1.0
    """What cosines and sines are multiplied with; attention scores are, by its square."""

    @property
    def pairs(self) -> int:
        """n, half the dimensions that are rotated."""
        return self.inverse.numel()

    def turns(self, tokens: int) -> Tensor:
        """-> [n]: how often each pair goes round within so many tokens."""
        return tokens * self.inverse / (2 * math.pi)


class Grouping(NamedTuple):
    """Positions that depend on pairs: keys less than `window` tokens back stand where they are; of those further back
    each `group` in a row share one position.
    """

    group: int
    window: int


@dataclass(frozen=True, kw_only=True)
class Positions(Method):
    """New frequencies for a context that is `factor` times as long as the model was trained on.

    Without a `factor` it is what the context needs: its length over the trained length, at least 1, decided once when
    the context is read. What a method is given are the frequencies that the model was trained with, whatever their
    type; layers with a sliding window keep theirs where they have their own.
    """

    family: ClassVar[str] = "positions"
    slot: ClassVar[str] = "positions"

    pairwise: ClassVar[bool] = False
    """Whether positions depend on pairs of tokens: cached keys are then not what every query sees."""

    factor: float | None = None

    @property
    def given(self) -> bool:
        """Whether the plan says how far to reach, instead of leaving it to each context."""
        return self.factor is not None

    def check(self) -> None:
        """Positions are stretched, not shrunk."""
        if self.factor is not None and self.factor < 1:
            raise PlanError(
                f"factor={self.factor:g} would make the model's reach shorter; give 1 or more, or leave it out for "
                "what the text needs"
            )

    def needed(self, length: int, trained: int | None) -> float:
        """The factor for a context of `length` tokens; raises PlanError where neither it nor the trained length is
        known.
        """
        if self.factor is not None:
            return self.factor
        if trained is None:
            raise PlanError(f"this model does not say how long its training texts were; write {self.name}(factor=...)")
        return max(1.0, length / trained)

    def stretch(self, rope: Rope, trained: int, factor: float) -> Rope:
        """-> what is used in place of `rope`, for `factor` times the `trained` length; factor 1 changes nothing."""
        raise TypeError(f"{type(self).__name__} defines no stretch(rope, trained, factor)")

    def unscaled(self, factor: float) -> int:
        """How many of the first tokens turn as the model was trained, whatever the others do."""
        return 0

    def grouping(self, trained: int, factor: float) -> Grouping | None:
        """For methods whose positions depend on pairs of tokens, how; None for all others."""
        return None

    def applies(self, rope: Rope, trained: int | None) -> str | None:
        """None if it can act on a model of these positions, else the reason."""
        return None


def ramp(values: Tensor, low: float, high: float) -> Tensor:
    """0 up to `low`, 1 from `high` on, straight in between; a step where they are the same."""
    return ((values - low) / (high - low if high != low else 0.001)).clamp(0, 1)


def index_of_turns(rope: Rope, trained: int, turns: float) -> float:
    """Which pair goes round `turns` times in the trained length: a fraction, and beyond the last pair where none is so
    slow. Frequencies fall by one ratio from pair to pair, or nearly so: between pairs their logarithm is a line.
    """
    logs = rope.inverse.double().log()
    wanted = math.log(2 * math.pi * turns / trained)
    if rope.pairs == 1:
        return 0.0
    at = int((logs[1:-1] > wanted).sum())  # the segment; the first and the last go on for ever
    return at + float((logs[at] - wanted) / (logs[at] - logs[at + 1]))


def as_float32(inverse: Tensor) -> Tensor:
    """Rounded once."""
    return inverse.to(torch.float32)
