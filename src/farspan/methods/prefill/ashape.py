"""A-shape: the beginning of the text and what is near."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from farspan.attention import Pattern, Sight
from farspan.methods.prefill.base import Chunk, Prefill, check_band
from farspan.registry import Paper


@dataclass(frozen=True, kw_only=True)
class Ashape(Prefill):
    """Let every token see the first `sinks` tokens and the newest `window`, in every layer.

    Source: the attention of StreamingLLM (Xiao et al. 2023) while reading; MInference (Jiang et al. 2024) calls it
    A-shape. Unlike `window`, which drops what is far, all entries are held: questions and answers see everything.
    """

    paper: ClassVar[Paper | None] = Paper("MInference", arxiv="2407.02490", section="A-shape head")

    sinks: int = 64
    window: int = 1024

    def check(self) -> None:
        """See `check_band`."""
        check_band(self.sinks, self.window)

    def pattern(self, chunk: Chunk) -> Pattern:
        """-> the same in every layer."""
        return Pattern(heads=(Sight(sinks=self.sinks, window=self.window),))
