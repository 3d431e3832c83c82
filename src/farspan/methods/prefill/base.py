"""The contract of a prefill method: for each chunk and layer, a pattern of what its queries see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from farspan.attention import Pattern
from farspan.cache import LayerCache
from farspan.errors import PlanError
from farspan.registry import Method


@dataclass(frozen=True, kw_only=True, eq=False)
class Chunk:
    """New tokens of one sequence in one full-attention layer, just before they attend."""

    layer: int
    layers: int
    """Layers of the model, whatever their kind."""
    heads: int
    """Key-value heads of this one."""
    start: int
    """Position of the first new token."""
    total: int
    """Positions taken when this read is over: the last chunk ends here."""
    queries: Tensor
    """[Hq, T, D], after rotation; of the text alone, not of a probe."""
    scaling: float
    held: LayerCache
    """All that the layer holds, the new tokens last (a probe's behind them, where one is lent)."""
    began: int = 0
    """Position of the first token of this read."""
    memory: dict[str, Any] = field(default_factory=dict)
    """What the method left here for this layer at an earlier chunk of this read; the one thing it may change."""

    @property
    def tokens(self) -> int:
        """New tokens T."""
        return self.queries.shape[1]

    @property
    def stop(self) -> int:
        """Position after the last new token."""
        return self.start + self.tokens


@dataclass(frozen=True, kw_only=True)
class Prefill(Method):
    """Which keys the queries of a text see while it is read; questions and answers see all that is held."""

    family: ClassVar[str] = "prefill"
    slot: ClassVar[str] = "prefill"

    def pattern(self, chunk: Chunk) -> Pattern | None:
        """What the chunk's queries see, by position; None for everything. Asked once for every chunk, in order."""
        raise TypeError(f"{type(self).__name__} defines no pattern(chunk)")

    def applies(self, layers: int, heads: Mapping[int, int]) -> str | None:
        """Why it does not suit a model of so many layers, of which those with full attention have these numbers of
        key-value heads; None where it does.
        """
        return None


def check_band(sinks: int, window: int) -> None:
    """Raise PlanError unless every token sees itself, and no fewer sinks than none."""
    if window < 1:
        raise PlanError(f"window={window} leaves a token nothing to see, not even itself; give 1 or more")
    if sinks < 0:
        raise PlanError(f"sinks={sinks} is fewer than none; give 0 or more")


def begins_too_deep(start: int, layers: int, heads: Mapping[int, int]) -> str | None:
    """Why none of the layers with full attention, the keys of `heads`, is `start` or deeper; None where one is."""
    if any(layer >= start for layer in heads):
        return None
    return f"start={start}, and the last of its {layers} layers with full attention is {max(heads)}"


def joined(bands: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Ascending ranges of distances, with those that touch as one."""
    found: list[tuple[int, int]] = []
    for near, far in bands:
        if found and found[-1][1] == near:
            found[-1] = (found[-1][0], far)
        else:
            found.append((near, far))
    return tuple(found)
