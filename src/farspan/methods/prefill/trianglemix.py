"""TriangleMix: dense where the model is shallow, a triangle where it is deep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from farspan.attention import Pattern, Sight
from farspan.errors import PlanError
from farspan.methods.prefill.base import Chunk, Prefill, begins_too_deep, check_band
from farspan.registry import Paper


@dataclass(frozen=True, kw_only=True)
class Trianglemix(Prefill):
    """Read densely below layer `start`; from there on see sinks and a window, and all only from the last rows.

    Source: He et al. 2025, "TriangleMix": in deep layers, what queries in the middle of a text gather from its middle
    hardly reaches the answer, and what its last `last` queries gather does. Where the deep layers begin, the paper
    finds for each model by gradients; here it is given, and half of the layers by default. An append is a text of its
    own: its last rows are dense too. Defaults are those of the released code (microsoft/MInference, TriangleMix), with
    which its table of RULER at 128k was made; there Llama 3.1 8B begins at layer 16 of 32, Qwen2.5 7B at 20 of 28.
    """

    paper: ClassVar[Paper | None] = Paper("TriangleMix", arxiv="2507.21526", id=38)

    start: int | None = None
    sinks: int = 8
    window: int = 512
    last: int = 128

    def check(self) -> None:
        """Layers are counted from 0, and without last rows it would be `ashape`."""
        check_band(self.sinks, self.window)
        if self.start is not None and self.start < 0:
            raise PlanError(f"start={self.start} is no layer; they are counted from 0")
        if self.last < 1:
            raise PlanError(f"last={self.last} leaves no side of the triangle that sees all; give 1 or more, or ashape")

    def applies(self, layers: int, heads: Mapping[int, int]) -> str | None:
        """The triangle has to begin in a layer that there is."""
        return begins_too_deep(self._start(layers), layers, heads)

    def pattern(self, chunk: Chunk) -> Pattern | None:
        """-> nothing for a shallow layer."""
        if chunk.layer < self._start(chunk.layers):
            return None
        sight = Sight(sinks=self.sinks, window=self.window)
        return Pattern(heads=(sight,), dense_from=max(0, chunk.total - self.last))

    def _start(self, layers: int) -> int:
        return layers // 2 if self.start is None else self.start
