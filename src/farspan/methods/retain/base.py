"""The three small things a retain method is made of: a scorer, an allocator, a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from farspan.budget import Budget
from farspan.errors import BudgetError, PlanError
from farspan.registry import Method
from farspan.signals import Observation


@dataclass(frozen=True, kw_only=True)
class Scorer(Method):
    """How much each held entry matters: `score(observation) -> [H, N]`, higher is kept.

    What `protects` names stays whatever its score, so that no head is emptied and the newest tokens can still be
    scored by later ones. A budget below that floor is an error.
    """

    family: ClassVar[str] = "retain"
    slot: ClassVar[str] = "score"
    accumulates: ClassVar[tuple[str, ...]] = ()
    """Names of the per-entry state that `accumulate` renews after every chunk."""
    predicted: ClassVar[bool] = False
    """True if it goes by how well tokens were predicted (`observation.surprisal`), which is known only when a chunk has
    passed every layer: decisions then wait for that, and no queries are kept for them."""

    knows_kinds: ClassVar[bool] = False
    """True if it looks at `observation.kinds`, which tokens are special and which are punctuation."""

    cascades: ClassVar[bool] = False
    """True if what a layer drops is to go from every later layer too: the runtime then notes which tokens a layer kept
    in `observation.carried["kept"]` [seen] bool, and lets a layer decide even where all would fit."""

    budget: Budget | None = None
    """Entries per key-value head on average; see Budget."""
    decode: int | None = None
    """Entries per head that questions and answers may hold, all turns since reading together; None: all they bring."""

    def __post_init__(self) -> None:
        """Refuse a budget for answers that its floor alone would fill."""
        if not isinstance(self.decode, int):
            return
        if self.predicted:
            raise PlanError(
                f"{self.name} goes by predictions, and cannot hold a budget while answering: leave decode out"
            )
        if self.decode <= self.floor:
            sinks, recent = self.protects()
            raise BudgetError(
                f"{self.name}: decode={self.decode} leaves no room above the floor of {self.floor} ({sinks} attention "
                f"sinks and the {recent} newest tokens always stay). Give at least {self.floor + 1}."
            )

    def accumulate(self, observation: Observation) -> dict[str, Tensor]:
        """-> [H, N] by name, what takes the place of `observation.state` (zero for entries that are new).

        Called once for every chunk, with the queries of all its tokens, before `score`; in layerwise order too.
        """
        raise TypeError(f"{type(self).__name__} names state to accumulate and defines no accumulate(observation)")

    def applies(self, heads: Mapping[int, int]) -> str | None:
        """Why it cannot score full-attention layers with these numbers of heads, or None where it can."""
        return None

    def heads_left(self, layer: int, layers: int, heads: int) -> int:
        """How many of its `heads` key-value heads the `layer`-th of `layers` full-attention layers keeps; no more than
        the layer before. The others are pruned: they hold and put out nothing.
        """
        return heads

    def head_importance(self, out: Tensor) -> Tensor:
        """out [Hk, T, G, Dv], what a layer put out -> [Hk]: what counts for each head, in this layer and those before
        together, when later ones prune.
        """
        raise TypeError(f"{type(self).__name__} prunes heads and defines no head_importance(out)")

    def score(self, observation: Observation) -> Tensor:
        """-> [H, N] float; may use anything the observation holds, must not change it. What scores -inf goes, whatever
        the budget, unless it is protected."""
        raise TypeError(f"{type(self).__name__} defines no score(observation)")

    def protects(self) -> tuple[int, int]:
        """(sinks, recent): how many first positions (attention sinks, Xiao et al. 2023) and newest tokens stay."""
        return 4, 32

    def observes(self) -> int:
        """How many of the last queries the scorer wants to see; chunks are never shorter."""
        return 0

    @property
    def floor(self) -> int:
        """The smallest budget, in entries per head."""
        return sum(self.protects())

    @property
    def state_bytes(self) -> int:
        """Bytes of per-entry state, for every entry of every head."""
        return 4 * len(self.accumulates)


@dataclass(frozen=True, kw_only=True)
class Allocator(Method):
    """How many entries each head of a layer keeps: `allocate(scores, observed, total) -> [H]`."""

    family: ClassVar[str] = "retain"
    slot: ClassVar[str] = "allocate"
    scope: ClassVar[Literal["static", "layer"]] = "static"
    default_scorer: ClassVar[str] = "snapkv"

    budget: Budget | None = None

    def shares(self, entries: int, heads: Sequence[int], floor: int, tokens: int) -> list[int]:
        """-> entries per head for each full-attention layer, the first layer first; known before anything is read.

        `heads[l]` are the l-th such layer's key-value heads, `tokens` all that will have been seen. No share is below
        `floor`, the scorer's, and shares times heads sum to at most `entries` times all heads. Within its layer, a
        share is then given out by `allocate`.
        """
        return [entries] * len(heads)

    def applies(self, heads: Mapping[int, int]) -> str | None:
        """Why it cannot share out over full-attention layers with these numbers of heads, or None where it can."""
        return None

    def allocate(self, scores: Tensor, observed: Sequence[Observation], total: int) -> Tensor:
        """scores [H, N], `total` entries for all heads together -> counts [H] int64, sum at most `total`.

        Protected entries score +inf. Where heads hold unequal numbers, shorter ones are padded with -inf at their end
        and `observed` has one observation per head; else it has one for all.
        """
        raise TypeError(f"{type(self).__name__} defines no allocate(scores, observed, total)")


class Entries(NamedTuple):
    """Entries of one head: keys [n, D], values [n, Dv], positions [n] int32 and what they scored, [n] float32."""

    keys: Tensor
    values: Tensor
    positions: Tensor
    scores: Tensor


@dataclass(frozen=True, kw_only=True)
class Folder(Method):
    """What becomes of entries that go: `fold(kept, dropped) -> Entries`, head by head; without one they are dropped."""

    family: ClassVar[str] = "retain"
    slot: ClassVar[str] = "fold"
    default_scorer: ClassVar[str] = "snapkv"

    budget: Budget | None = None

    def fold(self, kept: Entries, dropped: Entries) -> Entries:
        """-> what stays: as many entries as `kept`, at its positions; keys and values may have taken up what goes."""
        raise TypeError(f"{type(self).__name__} defines no fold(kept, dropped)")


def keep(scores: Tensor, count: int) -> Tensor:
    """scores [N] -> positions in [0, N) of the `count` best above -inf, ascending; ties go to the older entry."""
    best = scores.sort(descending=True, stable=True)
    most = min(count, int((scores > -torch.inf).sum()))
    return best.indices[:most].sort().values
