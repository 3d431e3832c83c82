"""SelfExtend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from farspan.errors import PlanError
from farspan.methods.positions.base import Grouping, Positions, Rope
from farspan.registry import Paper


@dataclass(frozen=True, kw_only=True)
class Selfextend(Positions):
    """Keep the exact distance of near tokens, and of far ones only which group of positions they fall into.

    Keys less than `window` tokens back (a quarter of the trained length, unless given) stand where they are; further
    back, each `group` of positions counts as one, so that no distance is longer than training showed. The group is
    what the text needs, unless it is given, or follows from a `factor`: reach is window + group · (trained - window).

    Source: Jin et al. 2024, "LLM Maybe LongLM: Self-Extend LLM Context Window Without Tuning", section 3. Every pass
    turns all far keys anew. What goes by queries and cached keys alone would misjudge them, so plans that drop,
    select or pattern entries cannot be combined with it.
    """

    paper: ClassVar[Paper | None] = Paper("SelfExtend", arxiv="2401.01325", section="3")
    conflicts: ClassVar[tuple[str, ...]] = ("score", "allocate", "fold", "prefill", "fetch", "parallel")
    pairwise: ClassVar[bool] = True

    group: int | None = None
    window: int | None = None

    @property
    def given(self) -> bool:
        """A group says it too."""
        return self.factor is not None or self.group is not None

    def check(self) -> None:
        """Groups and windows hold tokens, and one thing decides how far they reach."""
        super().check()
        for name, value in (("group", self.group), ("window", self.window)):
            if value is not None and value < 1:
                raise PlanError(f"{name}={value} is too small; give 1 or more, or leave it out")
        if self.group is not None and self.factor is not None:
            raise PlanError(
                f"group={self.group} and factor={self.factor:g} both say how far to reach; give one of them"
            )

    def applies(self, rope: Rope, trained: int | None) -> str | None:
        """A window must leave room for what is far."""
        if trained is not None and self._near(trained) >= trained:
            return f"window={self._near(trained)} leaves no position for far tokens; the trained length is {trained}"
        return None

    def needed(self, length: int, trained: int | None) -> float:
        """What a group that is given reaches."""
        if self.group is None or trained is None:
            return super().needed(length, trained)
        window = self._near(trained)
        return (window + self.group * (trained - window)) / trained

    def stretch(self, rope: Rope, trained: int, factor: float) -> Rope:
        """Frequencies stay."""
        return rope

    def grouping(self, trained: int, factor: float) -> Grouping | None:
        """-> the smallest group that brings every distance within the trained length, or the one that is given."""
        window = self._near(trained)
        if self.group is not None:
            return Grouping(self.group, window) if self.group > 1 else None
        newest, group = round(factor * trained) - 1, 1
        while newest // group + window - window // group >= trained:
            group += 1
        return Grouping(group, window) if group > 1 else None

    def _near(self, trained: int) -> int:
        return max(1, trained // 4) if self.window is None else self.window
