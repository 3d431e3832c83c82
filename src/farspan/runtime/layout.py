"""What a model is made of, as far as caches care."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from farspan.budget import Budget
from farspan.cache import SequenceCache
from farspan.errors import PlanDoesNotApply, PlanError
from farspan.methods.fetch.base import Fetch
from farspan.methods.parallel._merging import Merging
from farspan.methods.positions.base import Positions
from farspan.methods.prefill.base import Prefill
from farspan.methods.retain.base import Allocator, Scorer
from farspan.methods.store.base import Store
from farspan.plan import Plan


@dataclass(frozen=True)
class LayerLayout:
    """One attention layer: heads, sizes, its own sliding window in tokens (None for full attention)."""

    heads: int
    query_heads: int
    head_size: int
    value_size: int
    window: int | None
    scaling: float

    def entry_bytes(self, dtype: torch.dtype) -> int:
        """Bytes of one entry in one head, at the model's dtype."""
        return (self.head_size + self.value_size) * dtype.itemsize


@dataclass(frozen=True)
class ModelLayout:
    """All layers, the dtype keys are cached in, and the longest text the model was trained on."""

    layers: tuple[LayerLayout, ...]
    dtype: torch.dtype
    hidden: int
    trained_length: int | None

    @property
    def windows(self) -> tuple[int | None, ...]:
        """Each layer's own window."""
        return tuple(layer.window for layer in self.layers)

    def empty(self, *, trace: bool = False) -> SequenceCache:
        """A cache for this model that has seen nothing."""
        return SequenceCache.empty(self.windows, trace=trace)

    def full_bytes(self, tokens: int) -> int:
        """Bytes that transformers' DynamicCache holds after `tokens` tokens: the yardstick."""
        held = (tokens if w is None else min(tokens, w - 1) for w in self.windows)
        return sum(n * layer.heads * layer.entry_bytes(self.dtype) for n, layer in zip(held, self.layers, strict=True))

    def leaders(self, plan: Plan) -> dict[int, int]:
        """Which layers go by the keys of which others, under this plan (see `Store.follows`)."""
        store = plan.get("store")
        full = [index for index, layer in enumerate(self.layers) if layer.window is None]
        return store.follows(full) if isinstance(store, Store) else {}

    def packed_bytes(self, store: Store, index: int, count: int) -> int:
        """Bytes of a store's blocks when each head of a full-attention layer holds `count` entries."""
        layer = self.layers[index]
        total = store.holds(count, layer.heads, layer.head_size, layer.value_size, self.dtype)
        follows = index in store.follows([i for i, each in enumerate(self.layers) if each.window is None])
        keyless = store.keyless(count) if follows else 0
        return total - keyless * layer.heads * layer.head_size * self.dtype.itemsize

    def size_of(self, plan: Plan, tokens: int) -> Callable[[int], int]:
        """-> bytes of KV after `tokens` tokens when every head of the full-attention layers holds n entries.

        Positions count: int32 per entry and head after a decision; so does what a scorer accumulates, and the index of
        a plan that fetches. Layers with a window hold what they need first.
        """
        store, fetch, state = plan.get("store"), plan.get("fetch"), state_bytes(plan)

        def size(count: int) -> int:
            total = 0
            for index, layer in enumerate(self.layers):
                if layer.window is not None:
                    total += min(tokens, layer.window - 1) * layer.heads * layer.entry_bytes(self.dtype)
                    continue
                total += count * layer.heads * (4 + state)
                if isinstance(fetch, Fetch) and count:
                    total += fetch.index_bytes(count, layer.heads, layer.head_size, self.dtype)
                if isinstance(store, Store):
                    total += self.packed_bytes(store, index, count)
                else:
                    total += count * layer.heads * layer.entry_bytes(self.dtype)
            return total

        return size

    def settled(self, plan: Plan, tokens: int) -> Plan:
        """The plan with the store that its budget chooses for a text of `tokens` tokens, where the plan leaves that
        open; else itself.
        """
        store = plan.get("store")
        choices = store.candidates() if isinstance(store, Store) else ()
        if len(choices) < 2:
            return plan
        assert plan.budget is not None and plan.budget.kind == "bytes", "check() refuses anything else"
        others = tuple(method for method in plan.methods if method is not store)
        plans = [Plan(others if choice is None else (*others, choice)) for choice in choices]
        fitting = (p for p in plans if self.size_of(p, tokens)(tokens) <= plan.budget.value)
        return next(fitting, plans[-1])

    def check(self, plan: Plan) -> None:
        """Raise PlanDoesNotApply where the plan has no layer left to act on, or a layer it cannot handle; PlanError for
        two ways to read at once.
        """
        full = [layer for layer in self.layers if layer.window is None]
        if isinstance(method := plan.get("parallel"), Merging):
            _check_merging(plan, method, self.windows)
        for slot in ("prefill", "score", "allocate", "fold", "store", "place", "fetch"):
            method = plan.get(slot)
            if method is None:
                continue
            if not full:
                window = self.layers[0].window
                raise PlanDoesNotApply(
                    f"{method.name} acts on full-attention layers, and all {len(self.layers)} layers of this model "
                    f"have a sliding window of their own ({window} tokens). Use the plan 'full'."
                )
            heads = {i: layer.heads for i, layer in enumerate(self.layers) if layer.window is None}
            reason = method.applies(heads) if isinstance(method, Scorer | Allocator) else None
            if isinstance(method, Prefill):
                reason = method.applies(len(self.layers), heads)
            if reason is not None:
                raise PlanDoesNotApply(f"{method.name} does not apply: {reason}")
            if isinstance(method, Fetch) and method.read and plan.get("prefill") is not None:
                raise PlanError(
                    f"{method.name} reads the context by fetching, and {plan.get('prefill')!r} by a pattern. "
                    f"Write {method.name}(read=false), or leave the pattern out."
                )
            if isinstance(method, Store):
                _check_choice(plan, method)
                _check_queries(plan, method)
                _check_leaders(method, self)
                for layer in full:
                    reason = method.applies(layer.head_size, layer.value_size)
                    if reason is not None:
                        raise PlanDoesNotApply(f"{method.name} cannot hold this model's keys: {reason}")

    def budget(self, plan: Plan, budget: Budget, tokens: int) -> int:
        """Entries per head on average that `budget` means for a read of `tokens` tokens."""
        return budget.resolve(tokens=tokens, size=self.size_of(plan, tokens))


def state_bytes(plan: Plan) -> int:
    """Bytes that a plan's scorer accumulates for every entry of every head."""
    scorer = plan.get("score")
    return scorer.state_bytes if isinstance(scorer, Scorer) else 0


def _check_merging(plan: Plan, method: Merging, windows: tuple[int | None, ...]) -> None:
    for index, window in enumerate(windows):
        if window is not None:
            raise PlanDoesNotApply(
                f"{method.name} merges pieces in every layer, and layer {index} of this model sees {window} tokens "
                "alone; use concat, ape or sinks"
            )
    store = plan.get("store")
    if isinstance(store, Store) and store.asks(1):
        raise PlanDoesNotApply(
            f"{store.name} packs by what queries look at, and under {method.name} these are of pieces that were merged "
            "since; take another store"
        )


def _check_leaders(store: Store, layout: ModelLayout) -> None:
    full = [index for index, layer in enumerate(layout.layers) if layer.window is None]
    for index, leader in store.follows(full).items():
        one, other = (layout.layers[i] for i in (leader, index))
        if replace(one, scaling=0.0, value_size=0) != replace(other, scaling=0.0, value_size=0):
            raise PlanDoesNotApply(
                f"{store.name} has layer {index} go by the keys of layer {leader}, and their heads differ in number or "
                "size; name layers that are alike"
            )


def _check_queries(plan: Plan, store: Store) -> None:
    positions = plan.get("positions")
    if isinstance(positions, Positions) and positions.pairwise and store.keyless(10**9):
        raise PlanDoesNotApply(
            f"{store.name} takes scores from other layers, and {positions.name} works them out anew for far keys; take "
            "another store"
        )
    if isinstance(positions, Positions) and positions.pairwise and store.asks(1):
        raise PlanDoesNotApply(
            f"{store.name} packs by what queries look at, and under {positions.name} they look at far keys from other "
            "positions than these are held with; take another store"
        )


def _check_choice(plan: Plan, store: Store) -> None:
    if len(store.candidates()) > 1 and (plan.budget is None or plan.budget.kind != "bytes"):
        raise PlanError(
            f"{store.name!r} chooses its precision by a budget in bytes, and this plan's is {plan.budget}. "
            "Write one such as snapkv:64MiB, or name the precision: int8, int4, int2."
        )
