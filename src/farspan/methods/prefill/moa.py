"""MoA: each head's own span, measured once and in proportion to the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from farspan.attention import Pattern, Sight
from farspan.errors import PlanError
from farspan.heads import SHIPPED, SPANS, HeadProfile, load
from farspan.methods.prefill.base import Chunk, Prefill, check_band
from farspan.registry import Paper


@dataclass(frozen=True, kw_only=True)
class Moa(Prefill):
    """Give each head a window that grows with the text as steeply as its profile asks, within a density over all heads.

    Source: Fu et al. 2024, "MoA": spans of heads are linear in the length of the input; a profile says what each head
    loses under each rule, and the plan that loses least at a given mean density is found once, offline. Here a rule is
    `window` plus a share of the text (none, 1/16, 1/8, 1/4, 1/2 or all), and the loss is the attention beyond it, as
    `farspan profile` measures it at one length; the paper measures the influence on the training loss, by gradients, at
    several, and lets the constant differ too. Rules are chosen by what a step saves for what it costs, best step first.
    """

    paper: ClassVar[Paper | None] = Paper("MoA", arxiv="2406.14909", section="4", id=245)
    artefacts: ClassVar[tuple[str, ...]] = ("profile",)

    profile: str = SHIPPED
    density: float = 0.5
    sinks: int = 64
    window: int = 128

    def check(self) -> None:
        """A density is a share of all pairs."""
        check_band(self.sinks, self.window)
        if not 0 < self.density <= 1:
            raise PlanError(f"density={self.density} is no share of all pairs; give more than 0, at most 1")

    def load(self) -> HeadProfile:
        """The profile that is named; raises ProfileError."""
        return load(self.profile)

    def applies(self, layers: int, heads: Mapping[int, int]) -> str | None:
        """The profile must have the model's heads, and say what lies beyond spans."""
        profile = self.load()
        reason = profile.fits(heads)
        if reason is None and not profile.has_spans:
            reason = (
                "it was made before profiles said what lies beyond a span. Make one: farspan profile MODEL -o my.heads"
            )
        return reason and f"its profile {self.profile!r} does not fit: {reason}"

    def pattern(self, chunk: Chunk) -> Pattern:
        """-> each head's window, for a text that ends at `total`."""
        profile = self.load()
        shares = spans(profile, self.density)[profile.layers.index(chunk.layer)]
        windows = [self.window + int(share * chunk.total) for share in shares]
        return Pattern(heads=tuple(Sight(window=window, sinks=self.sinks) for window in windows))


def spans(profile: HeadProfile, density: float) -> list[list[float]]:
    """-> per layer and head the share of the text that its window spans, 0 to 1, so that the mean share of pairs is at
    most `density` and little attention lies beyond.
    """
    rules = [0.0, *(1 / n for n in SPANS), 1.0]
    lost = [
        [*(profile.scores[f"beyond/{n}"][i][h] for n in (0, *SPANS)), 0.0]
        for i, heads in enumerate(profile.heads)
        for h in range(heads)
    ]
    chosen = [0] * len(lost)
    left = density * len(lost)
    while (step := _best_step(chosen, lost, rules, left)) is not None:
        head, rule = step
        left -= _pairs(rules[rule]) - _pairs(rules[chosen[head]])
        chosen[head] = rule
    flat = iter(rules[rule] for rule in chosen)
    return [[next(flat) for _ in range(heads)] for heads in profile.heads]


def _best_step(
    chosen: Sequence[int], lost: Sequence[Sequence[float]], rules: Sequence[float], left: float
) -> tuple[int, int] | None:
    """The head and its next rule that save most attention for each pair they cost, and fit; ties go to the first."""
    best, found = 0.0, None
    for head, rule in enumerate(chosen):
        for wider in range(rule + 1, len(rules)):
            cost = _pairs(rules[wider]) - _pairs(rules[rule])
            saved = (lost[head][rule] - lost[head][wider]) / cost
            if cost <= left + 1e-9 and saved > best:
                best, found = saved, (head, wider)
    return found


def _pairs(share: float) -> float:
    """Of all pairs of a causal map, those within a window of a share of its length."""
    return share * (2 - share)
