"""LOOK-M's eviction: text before everything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from farspan.methods.retain.h2o import H2o
from farspan.registry import Paper
from farspan.signals import Observation


@dataclass(frozen=True, kw_only=True)
class Textprior(H2o):
    """Keep text first, and of what is marked as no text (images, tables, logs) what draws most attention.

    Source: Wan et al. 2024, "LOOK-M", section 3.2: the score is accumulated attention, and text is lifted by the
    largest there is, so that everything else goes before it. The caller marks spans of a document:
    `Document(text=..., nontext=[(start, end), ...])`; without marks all is text, and this is `h2o`. `recent` newest
    entries always stay, as there.
    """

    paper: ClassVar[Paper | None] = Paper("LOOK-M", arxiv="2406.18139", section="3.2", id=251)
    accumulates: ClassVar[tuple[str, ...]] = ("attention", "nontext")

    def accumulate(self, observation: Observation) -> dict[str, Tensor]:
        """-> attention drawn, and 1 for what is not text."""
        o, nontext = observation, observation.state["nontext"]
        if o.nontext is not None:
            first = o.seen - o.nontext.numel()
            marked = o.nontext.to(nontext)[(o.positions - first).clamp(min=0).long()]
            nontext = nontext + marked * (o.positions >= first)
        return {**super().accumulate(o), "nontext": nontext}

    def score(self, observation: Observation) -> Tensor:
        """-> [H, N]: accumulated attention, lifted above all that is not text where it is text."""
        attention = observation.state["attention"]
        prior = attention.amax(1, keepdim=True)
        return attention + prior * (1 - observation.state["nontext"])
