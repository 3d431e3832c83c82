"""Carrying out a plan's pattern of reading: asked for per layer and chunk, noted, and handed to attention."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from farspan.attention import Pattern
from farspan.attention.pattern import dense_pairs
from farspan.cache import Events, LayerCache
from farspan.cache.sequence import Patterned
from farspan.methods.prefill.base import Chunk, Prefill
from farspan.plan import Plan


@dataclass
class Pairs:
    """Pairs of a query and a key in the layers that were asked for patterns, mean over heads."""

    shown: float = 0.0
    dense: int = 0

    @property
    def share(self) -> float | None:
        """Of a dense read's pairs; None before anything was read."""
        return self.shown / self.dense if self.dense else None


@dataclass(frozen=True)
class Prefilling:
    """A read under a prefill method: of a model of `layers` layers, from position `began` up to `total`."""

    method: Prefill
    layers: int
    total: int
    began: int = 0
    memory: dict[int, dict[str, Any]] = field(default_factory=dict)
    """What the method left, by layer."""
    pairs: Pairs = field(default_factory=Pairs)
    """What its patterns showed so far."""

    @classmethod
    def of(cls, plan: Plan, layers: int, began: int, total: int) -> Prefilling | None:
        """From a plan, if it has a prefill method."""
        method = plan.get("prefill")
        return cls(method, layers, total, began) if isinstance(method, Prefill) else None

    def pattern(
        self, layer: LayerCache, query: Tensor, start: int, lent: int, scaling: float, events: Events | None
    ) -> Pattern | None:
        """What the new tokens, query [Hq, T, D] from position `start` on, see; the last `lent` are a probe's, which
        sees everything. Layers with a window of their own keep that, and no more is asked of them. None where all is
        seen.
        """
        if layer.window is not None:
            return None
        tokens = query.shape[1] - lent
        chunk = Chunk(
            layer=layer.index,
            layers=self.layers,
            heads=layer.tail.keys.shape[0],
            start=start,
            total=self.total,
            queries=query[:, :tokens],
            scaling=scaling,
            held=layer,
            began=self.began,
            memory=self.memory.setdefault(layer.index, {}),
        )
        found = self.method.pattern(chunk)
        every = dense_pairs(start, chunk.stop - 1)
        self.pairs.dense += every
        if found is None or found.sees_all(start, chunk.stop - 1):
            self.pairs.shown += every
            return None
        self.pairs.shown += found.pairs(start, chunk.stop - 1)
        if events is not None:
            events.add(Patterned(layer.index, start, chunk.stop, found))
        return found.dense(chunk.stop) if lent else found
