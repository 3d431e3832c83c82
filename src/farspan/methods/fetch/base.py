"""The contract of a fetch method: an index of what is sealed, and a choice from it for every few queries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from farspan.budget import Budget
from farspan.errors import BudgetError, PlanError
from farspan.registry import Method


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """The entries of one extent that are to be indexed, for heads of equal N; never to be changed."""

    layer: int
    keys: Tensor
    """[h, N, D] as they are held: unpacked, where a store packs them."""
    positions: Tensor
    """[h, N] int32, ascending."""
    noted: Mapping[str, Tensor] = field(default_factory=dict)
    """[h, N] float32 by name: what was noted of these entries when they were new; see `Fetch.notes`."""

    def generator(self) -> torch.Generator:
        """Randomness that is the same whenever these entries are indexed."""
        return torch.Generator().manual_seed(self.layer)


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The entries of one extent that a step may fetch, for heads of equal N: of head h, `first[h]` up to `stop[h]`.
    Those before are attention sinks and those behind are recent: they are read anyway.
    """

    index: Mapping[str, Tensor]
    first: Sequence[int]
    stop: Sequence[int]
    positions: Tensor
    """[h, N] int32, ascending."""
    unpacked: Callable[[], Tensor] = field(repr=False)

    @property
    def keys(self) -> Tensor:
        """[h, N, D], unpacked now where a store packs them."""
        return self.unpacked()

    @property
    def entries(self) -> int:
        """N, sinks and recent entries included."""
        return self.positions.shape[1]

    def only(self, scores: Tensor) -> Tensor:
        """scores [h, ..., N] with -inf, written in place, for what is read anyway."""
        for head, (first, stop) in enumerate(zip(self.first, self.stop, strict=True)):
            scores[head, ..., :first] = -torch.inf
            scores[head, ..., stop:] = -torch.inf
        return scores


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The queries that one selection serves: the next t tokens of one sequence, in one layer."""

    layer: int
    queries: Tensor
    """[h, G, t, D]: h key-value heads, G query heads to each."""
    positions: Tensor
    """[t] int32."""
    scaling: float
    reading: bool
    """True while a context is read, False for questions and answers."""
    memory: dict[str, Any]
    """What the method left here for these heads at an earlier selection of this read or turn; the one thing that
    `select` may change."""
    turn: dict[str, Any] = field(default_factory=dict)
    """The same for all layers and heads of this read or turn; `select` may change it too."""
    first_head: int = 0
    """Which key-value head of the layer the first of these is."""
    anyway: Callable[[], Tensor] = field(repr=False)
    """-> [h, G, t] float32: log-sum-exp of the scores of what is read anyway (sinks, recent entries, the tail)."""
    seed: int = 0

    def generator(self) -> torch.Generator:
        """Randomness of this selection: the same in any batch, fork or process."""
        return torch.Generator().manual_seed(self.seed)


class Selection(NamedTuple):
    """What is read of one extent: `slots[h]` [n] int64, ascending, unique and local to head h (None: all candidates),
    and what their scores are raised by, `log_weights[h]` [n], where they stand for others too.
    """

    slots: tuple[Tensor, ...] | None
    log_weights: tuple[Tensor, ...] | None = None


EVERYTHING = Selection(None)


@dataclass(frozen=True, kw_only=True)
class Fetch(Method):
    """Which held entries a step reads: `index(sealed) -> tensors`, once for every extent; `select(asked, held, k) ->
    selections`, one for each extent.

    The first `sinks` positions, the newest `recent` tokens and whatever is not sealed yet are read anyway, on top of
    the budget. A layer with no more candidates than the budget is read whole, without asking.
    """

    family: ClassVar[str] = "fetch"
    slot: ClassVar[str] = "fetch"
    notes: ClassVar[tuple[str, ...]] = ()
    """What is noted per entry while it is new, for the index: `asked` is the mean score that it had from the queries of
    the next `notes_window` tokens (over the query heads of a group too), `surprisal` is -log p of the token."""

    budget: Budget | None = None
    """Entries per key-value head that are fetched for a step: a number, or a share of the tokens seen."""
    sinks: int = 4
    recent: int = 64
    together: int = 1
    """How many new tokens share one selection; 0: all that are fed in one pass."""
    read: bool = False
    """True: the context is read this way too, not only questions and answers."""

    def check(self) -> None:
        """A budget of at least `least` entries; nothing negative."""
        if self.budget is None:
            raise PlanError(f"it needs a budget of entries to fetch: write {self.name}:2048 or {self.name}:10%")
        if self.budget.kind == "bytes":
            raise BudgetError(
                f"a budget of {self.budget} is in bytes, and fetching frees none: it counts what a step reads. "
                f"Write entries per head ({self.name}:2048) or a share of the tokens seen ({self.name}:10%)"
            )
        if self.budget.kind == "entries" and self.budget.value < self.least:
            raise BudgetError(f"a budget of {self.budget} entries is too small; give {self.least} or more")
        for name in ("sinks", "recent", "together"):
            if getattr(self, name) < 0:
                raise PlanError(f"{name}={getattr(self, name)} is negative; give 0 or more")

    def reading(self) -> object:
        """See Method: nothing where only questions fetch, or else what notes are taken for."""
        if self.read:
            return self
        return (self.key, self.notes_window) if self.notes else None

    @property
    def least(self) -> int:
        """The smallest number of entries that can be fetched."""
        return 1

    @property
    def notes_window(self) -> int:
        """How many later tokens have a say in what is noted as `asked`."""
        return max(1, self.recent)

    def entries(self, tokens: int) -> int:
        """How many entries per head the budget means after `tokens` tokens, at least `least`."""
        assert self.budget is not None, "check() refuses a plan without"
        return max(self.least, self.budget.resolve(tokens=tokens))

    def index(self, sealed: Sealed) -> dict[str, Tensor]:
        """-> tensors [h, ...] by name; nothing where selecting needs none."""
        return {}

    def index_bytes(self, count: int, heads: int, head_size: int, dtype: torch.dtype) -> int:
        """Bytes of an index of `count` entries in each of `heads` heads, at most."""
        return 0

    def select(self, asked: Asked, held: Sequence[Candidates], k: int) -> list[Selection]:
        """-> a selection for each extent, of at most k candidates per head in all."""
        raise TypeError(f"{type(self).__name__} defines no select(asked, held, k)")

    @property
    def key(self) -> str:
        """Names the method and those of its parameters that an index may depend on."""
        shared = {each.name for each in fields(Fetch)}
        own = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in shared}
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in sorted(own.items()))})"
