"""Resonance RoPE."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from farspan.methods.positions.base import Positions, Rope, as_float32
from farspan.methods.positions.linear import Linear
from farspan.methods.positions.ntk import Ntk
from farspan.methods.positions.yarn import Yarn
from farspan.registry import Paper

_BASES: dict[str, Positions] = {"yarn": Yarn(), "ntk": Ntk(), "linear": Linear()}


@dataclass(frozen=True, kw_only=True)
class Resonance(Positions):
    """Round each wavelength to whole tokens, so that positions never seen repeat features that were.

    It comes after the frequencies of another method, `base`, or (`base=own`) those of training. Rounding matters to
    pairs whose wavelength is a few tokens; of long ones it changes nothing that could be seen.

    Source: Wang et al. 2024, "Resonance RoPE", section 4, and its code: YaRN first, then rounding.
    """

    paper: ClassVar[Paper | None] = Paper("Resonance RoPE", arxiv="2403.00071", section="4", id=9)

    base: Literal["yarn", "ntk", "linear", "own"] = "yarn"

    def stretch(self, rope: Rope, trained: int, factor: float) -> Rope:
        """-> 2π / round(2π / the base's inverse)."""
        if factor == 1:
            return rope
        made = rope if self.base == "own" else _BASES[self.base].stretch(rope, trained, factor)
        wavelengths = (2 * math.pi / made.inverse.double()).round()
        return Rope(inverse=as_float32(2 * math.pi / wavelengths), scale=made.scale)
