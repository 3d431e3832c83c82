"""Attention of the same sequences token after token: what the C++ kernels need to know of them is told once.

An answer asks every layer again at every token, of what has grown by that token alone. Until something seals or a
buffer is outgrown, only a count changes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from farspan.attention import native
from farspan.attention.scaling import sinks_of
from farspan.cache import Extent, LayerCache


class Standing:
    """One layer's call for the same sequences, with as many new tokens each as the first time."""

    __slots__ = ("_held", "_ready")

    def __init__(self, ready: native.Ready, layers: Sequence[LayerCache]) -> None:
        """`ready` has the tails of these layers for its first parts."""
        self._ready = ready
        self._held: list[tuple[LayerCache, tuple[Extent, ...], native.Part]] = []
        for index, layer in enumerate(layers):
            layer.tail.prepared = part = ready.parts[index]
            self._held.append((layer, layer.extents, part))

    def holds(self) -> bool:
        """Whether it still knows all that is held, but for tokens that the tails got; these it learns of now."""
        for layer, extents, part in self._held:
            if layer.extents is not extents or layer.tail.prepared is not part:
                return False
            part.count = layer.tail.length
        return True

    def attend(self, query: Tensor, scaling: float) -> Tensor:
        """query [Hq, ΣT, D] -> out [ΣT, Hq, Dv] in the query's dtype; see `attention.attend`."""
        return self._ready.attend(query, scaling, sinks_of(scaling), None)
