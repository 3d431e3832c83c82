"""TCA-Attention while reading: each head sees what is near, and the least redundant keys of what is far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from farspan.attention import Pattern, Sight
from farspan.attention.lse import held_pieces
from farspan.cache import LayerCache
from farspan.errors import PlanError
from farspan.heads import SHIPPED, HeadProfile, load
from farspan.methods.prefill.base import Chunk, Prefill, check_band
from farspan.methods.retain._profiled import shared_out
from farspan.methods.retain.base import keep
from farspan.methods.retain.tca import Tca
from farspan.registry import Paper
from farspan.signals.keys import likeness

PARTS = 10_000  # into which a density is cut before heads share it


@dataclass(frozen=True, kw_only=True)
class Coretokens(Prefill):
    """See sinks, a window, and of what is older each head's least redundant keys, as many as its calibration says.

    What leaves the window is chosen from once, chunk by chunk, and stays chosen. Of a head's share, `density` is the
    mean over all heads of the model; without one, a head sees the very share that gathered 90% of its attention when
    its profile was made (`spread`).

    Source: You et al. 2025, "Training-free Context-adaptive Attention": the selection of core context that `tca` makes
    for the cache, made for reading: the same profile, the same measure of redundancy (likeness to the mean of the keys
    chosen from), so that `coretokens(density=0.25) | tca:25% | layerwise` is read, held and answered by one rule.
    In stream order `tca` alone does that, because what it drops later chunks do not see. From the abstract and reviews;
    the paper's equations were not at hand.
    """

    paper: ClassVar[Paper | None] = Paper("TCA-Attention", arxiv="2512.09238", id=318)
    artefacts: ClassVar[tuple[str, ...]] = ("profile",)

    profile: str = SHIPPED
    density: float | None = None
    sinks: int = 4
    window: int = 1024

    def check(self) -> None:
        """A density is a share of what a head may see."""
        check_band(self.sinks, self.window)
        if self.density is not None and not 0 < self.density <= 1:
            raise PlanError(f"density={self.density} is no share of a text; give more than 0, at most 1")

    def load(self) -> HeadProfile:
        """The profile that is named; raises ProfileError."""
        return load(self.profile)

    def applies(self, layers: int, heads: Mapping[int, int]) -> str | None:
        """The profile must have the model's heads."""
        reason = self.load().fits(heads)
        return reason and f"its profile {self.profile!r} does not fit: {reason}"

    def shares(self, profile: HeadProfile) -> list[list[float]]:
        """-> of what is older than the window, the share that each head of each layer sees."""
        weights = Tca(profile=self.profile).weights(profile)
        if self.density is None:
            return [[min(1.0, weight) for weight in row] for row in weights]
        flat = [weight for row in weights for weight in row]
        parts = iter(shared_out(int(self.density * PARTS * len(flat)), flat, [PARTS] * len(flat)))
        return [[next(parts) / PARTS for _ in row] for row in weights]

    def pattern(self, chunk: Chunk) -> Pattern | None:
        """-> each head's columns; nothing while all is within the window."""
        if chunk.stop <= self.window + self.sinks:
            return None
        profile = self.load()
        shares = self.shares(profile)[profile.layers.index(chunk.layer)]
        known = chunk.memory.setdefault("chosen", [torch.empty(0, dtype=torch.int32)] * chunk.heads)
        first, stop = chunk.memory.get("until", self.sinks), chunk.stop - self.window
        for head, (keys, positions) in enumerate(_between(chunk.held, chunk.heads, first, stop)):
            count = int(shares[head] * (stop - self.sinks)) - int(shares[head] * (first - self.sinks))
            best = keep(-likeness(keys[None])[0], count)
            known[head] = torch.cat([known[head].to(positions.device), positions[best]])
        chunk.memory["until"] = max(first, stop)
        return Pattern(heads=tuple(Sight(window=self.window, sinks=self.sinks, columns=its) for its in known))


def _between(held: LayerCache, heads: int, first: int, stop: int) -> list[tuple[Tensor, Tensor]]:
    """-> of each head, keys [n, D] and positions [n] of what it holds at first..stop-1, oldest first."""
    found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(heads)]
    for piece in held_pieces(held):
        at = piece.positions.expand(piece.keys.shape[0], -1)
        for head, keys, positions in zip(range(piece.heads.start, piece.heads.stop), piece.keys, at, strict=True):
            inside = (positions >= first) & (positions < stop)
            found[head].append((keys[inside], positions[inside]))
    return [(torch.cat([k for k, _ in parts]), torch.cat([p for _, p in parts])) for parts in found]
