"""Next to no attention in the deepest layers: they hold the floor, the others share the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from farspan.errors import PlanError
from farspan.methods.retain.uniform import Uniform
from farspan.registry import Paper


@dataclass(frozen=True, kw_only=True)
class Shallow(Uniform):
    """Leave the deepest layers what the scorer always keeps, and give all the rest to the others, alike.

    Source: Tyukin et al. 2024, "Attention Is All You Need But You Don't Need All Of It": of Llama 2's attention layers
    the deepest third can be left out for 1.8% of accuracy (13B). They are left out for every token there, with what
    they would hold. Here a layer that sees nothing is none (no head is emptied): the deepest share `skip` of the layers
    with full attention keep sinks and the newest tokens, which at any length is next to nothing beside the text, and a
    question still sees itself. `shallow:70% | ashape(start=16)` reads them so too, and then their cost grows with the
    text as it would without them. What the other layers cannot use, because they hold everything, goes to the deepest.
    """

    paper: ClassVar[Paper | None] = Paper(
        "Attention Is All You Need But You Don't Need All Of It For Inference of Large Language Models",
        arxiv="2407.15516",
        id=235,
    )

    skip: float = 0.33

    def check(self) -> None:
        """Some layers are skipped, and some are not."""
        if not 0 < self.skip < 1:
            raise PlanError(f"skip={self.skip} is no share of the layers that leaves some; give one between 0 and 1")

    def shares(self, entries: int, heads: Sequence[int], floor: int, tokens: int) -> list[int]:
        """-> as much for each of the first layers as the budget has above the floor of the last, at least one of them;
        one layer alone has nobody to give to.
        """
        if len(heads) < 2 or tokens <= entries:
            return [entries] * len(heads)
        first = len(heads) - min(max(1, round(self.skip * len(heads))), len(heads) - 1)
        above, deep = sum(heads[:first]), sum(heads[first:])
        total = entries * (above + deep)
        most = min(tokens, (total - floor * deep) // above)
        return [most] * first + [(total - most * above) // deep] * (len(heads) - first)
