"""A-shape: the beginning of the text and what is near."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from farspan.attention import Pattern, Sight
from farspan.errors import PlanError
from farspan.methods.prefill.base import Chunk, Prefill, begins_too_deep, check_band
from farspan.registry import Paper


@dataclass(frozen=True, kw_only=True)
class Ashape(Prefill):
    """Let every token see the first `sinks` tokens and the newest `window`, from layer `start` on.

    Source: the attention of StreamingLLM (Xiao et al. 2023) while reading; MInference (Jiang et al. 2024) calls it
    A-shape. Unlike `window`, which drops what is far, all entries are held: questions and answers see everything.
    Layers below `start` are read densely.
    """

    paper: ClassVar[Paper | None] = Paper("MInference", arxiv="2407.02490", section="A-shape head")

    start: int = 0
    sinks: int = 64
    window: int = 1024

    def check(self) -> None:
        """See `check_band`; layers are counted from 0."""
        check_band(self.sinks, self.window)
        if self.start < 0:
            raise PlanError(f"start={self.start} is no layer; they are counted from 0")

    def applies(self, layers: int, heads: Mapping[int, int]) -> str | None:
        """There has to be a layer to begin in."""
        return begins_too_deep(self.start, layers, heads)

    def pattern(self, chunk: Chunk) -> Pattern | None:
        """-> the same in every layer from `start` on."""
        if chunk.layer < self.start:
            return None
        return Pattern(heads=(Sight(sinks=self.sinks, window=self.window),))
