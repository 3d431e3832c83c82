"""Carrying out a plan's fetching on one sequence: index what is sealed, ask the method, add what is read anyway."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from farspan.attention.fetched import Chosen, Gather
from farspan.attention.scaling import with_sinks
from farspan.cache import Extent, Index, LayerCache, SequenceCache
from farspan.cache.sequence import Fetched
from farspan.methods.fetch.base import Asked, Candidates, Fetch, Sealed, Selection
from farspan.plan import Plan
from farspan.runtime.noting import Notes
from farspan.runtime.recall import Recall, gather_lse, tail_lse


@dataclass
class Fetching:
    """One sequence's fetching during one read or one turn; what methods remember between selections goes with it."""

    method: Fetch
    plan_hash: str
    memory: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    """What the method left, by layer and first head."""
    turn: dict[str, Any] = field(default_factory=dict)
    """What it left for all layers."""
    recall: Recall | None = None
    """What measures how much of full attention is covered, where that was asked for."""
    notes: Notes = field(init=False)

    def __post_init__(self) -> None:
        """Nothing is noted yet."""
        self.notes = Notes(self.method.notes_window)

    @classmethod
    def of(cls, plan: Plan) -> Fetching | None:
        """From a plan, if it fetches."""
        method = plan.get("fetch")
        return cls(method, plan.hash) if isinstance(method, Fetch) else None

    def at(self, cache: SequenceCache, layer: LayerCache, start: int, probe: int, reading: bool) -> Choice | None:
        """What chooses for the new tokens of one layer, the first at position `start`, the last `probe` only lent; None
        where everything is read.
        """
        if layer.window is not None or (reading and not self.method.read):
            return None
        return Choice(self, cache, layer, start, probe, reading)

    def note(self, layer: LayerCache, query: Tensor, start: int, scaling: float) -> None:
        """A layer's new tokens have been attended from; `query` [Hq, T, D] are their queries."""
        if "asked" in self.method.notes:
            self.notes.ask(layer, query, start, scaling, _keys)

    def index(self, layer: LayerCache) -> None:
        """Index every extent that has no index of this method yet."""
        for extent in layer.extents:
            self.index_of(layer, extent)

    def finish(self, cache: SequenceCache) -> None:
        """The turn is over: index what sealed meanwhile, while what was noted of it is known."""
        for layer in cache.layers:
            self.index(layer)

    def index_of(self, layer: LayerCache, extent: Extent) -> Index:
        """An extent's index, made now if it has none of this method."""
        if extent.index is None or extent.index.key != self.method.key:
            groups = [slice(0, extent.heads)] if extent.uniform else [slice(h, h + 1) for h in range(extent.heads)]
            made = tuple(self._indexed(layer, extent, heads) for heads in groups)
            extent.index = Index(self.method.key, made)
        return extent.index

    def _indexed(self, layer: LayerCache, extent: Extent, heads: slice) -> dict[str, Tensor]:
        noted = {name: self.notes.of(name, layer.index, extent, heads) for name in self.method.notes}
        keys, positions = _keys(extent, heads), _positions(extent, heads)
        return self.method.index(Sealed(layer=layer.index, keys=keys, positions=positions, noted=noted))


def refetch(cache: SequenceCache, fetching: Fetching | None) -> None:
    """Make a fork's extents ready for other fetching than they were read for; those it was forked from keep theirs."""
    with torch.inference_mode():
        for layer in cache.layers:
            before, layer.extents = layer.extents, tuple(extent.unindexed() for extent in layer.extents)
            if fetching is None or layer.window is not None:
                continue
            for old, new in zip(before, layer.extents, strict=True):
                if old.index is not None and old.index.key == fetching.method.key:
                    new.index = old.index
            fetching.index(layer)


@dataclass
class Choice:
    """The moment in which a layer's new tokens choose what they read."""

    fetching: Fetching
    cache: SequenceCache
    layer: LayerCache
    start: int
    probe: int
    reading: bool

    def choose(self, query: Tensor, scaling: float) -> Iterator[Chosen]:
        """See `attention.fetched.Chooser`."""
        length = query.shape[1]
        together = self.fetching.method.together or length
        edges = sorted({*range(0, length, together), length - self.probe, length})
        for a, b in pairwise(edges):
            yield Chosen(a, b, self._run(query[:, a:b], a, scaling, lent=a >= length - self.probe))

    def _run(self, query: Tensor, offset: int, scaling: float, *, lent: bool) -> list[Gather]:
        """What tokens offset.. read, of every extent."""
        method, extents = self.fetching.method, self.layer.extents
        if not extents:
            return []
        begins = self.start + offset
        free = [_free(extent, method.sinks, begins - method.recent) for extent in extents]
        k = method.entries(begins)
        whole = all(sum(stop - first for first, stop in its) <= k for its in zip(*free, strict=True))
        gathers = [Gather(e) for e in extents] if whole else _Run(self, query, offset, scaling, free, k).gathers()
        if self.fetching.recall is not None and not lent:
            self.fetching.recall.note(self.layer, query, begins, scaling, gathers)
        if self.cache.events is not None and not lent and not whole:
            self.cache.events.add(_event(self.layer, begins, query.shape[1], gathers))
        return gathers


@dataclass
class _Run:
    """One selection: tokens `offset`.. of a pass, of which `free[e][h]` may be fetched of head h of extent e."""

    choice: Choice
    query: Tensor
    offset: int
    scaling: float
    free: list[list[tuple[int, int]]]
    k: int

    def gathers(self) -> list[Gather]:
        """Of every extent, what is selected and what is read anyway."""
        extents = self.choice.layer.extents
        alike = all(extent.uniform for extent in extents)
        heads = extents[0].heads
        groups = [slice(0, heads)] if alike else [slice(h, h + 1) for h in range(heads)]
        chosen = [self._selected(group) for group in groups]
        return [
            gather
            for e, extent in enumerate(extents)
            for gather in _together(extent, self.free[e], [selections[e] for selections in chosen], groups)
        ]

    def _selected(self, heads: slice) -> list[Selection]:
        """What the method selects for some heads, checked against its contract."""
        choice, layer = self.choice, self.choice.layer
        fetching, method = choice.fetching, choice.fetching.method
        begins, tokens = choice.start + self.offset, self.query.shape[1]
        held = [
            Candidates(
                index=fetching.index_of(layer, extent).of(heads),
                first=[first for first, _ in free[heads]],
                stop=[stop for _, stop in free[heads]],
                positions=_positions(extent, heads),
                unpacked=partial(_keys, extent, heads),
            )
            for extent, free in zip(layer.extents, self.free, strict=True)
        ]
        grouped = self.query.unflatten(0, (layer.extents[0].heads, -1))
        asked = Asked(
            layer=layer.index,
            queries=grouped[heads],
            positions=torch.arange(begins, begins + tokens, dtype=torch.int32, device=self.query.device),
            scaling=self.scaling,
            reading=choice.reading,
            memory=fetching.memory.setdefault((layer.index, heads.start), {}),
            turn=fetching.turn,
            first_head=heads.start,
            anyway=lambda: self._anyway[heads],
            seed=_seed(fetching.plan_hash, layer.index, heads.start, begins),
        )
        selections = method.select(asked, held, self.k)
        assert len(selections) == len(held), f"{method.name} made {len(selections)} selections of {len(held)} extents"
        return selections

    @cached_property
    def _anyway(self) -> Tensor:
        """[H, G, t] log-sum-exp of the scores of what is read whatever is chosen."""
        layer = self.choice.layer
        grouped = self.query.unflatten(0, (layer.tail.keys.shape[0], -1))
        lse = tail_lse(layer, grouped, self.choice.start + self.offset, self.scaling)
        for extent, free in zip(layer.extents, self.free, strict=True):
            barred = Gather(extent, tuple(_barred(extent, h, *bounds) for h, bounds in enumerate(free)))
            lse = torch.logaddexp(lse, gather_lse(grouped, barred, self.scaling))
        return with_sinks(lse.flatten(0, 1), self.scaling).view_as(lse)


def _keys(extent: Extent, heads: slice) -> Tensor:
    """[h, N, D] of heads of equal N; a view where nothing is packed."""
    run = slice(extent.offsets[heads.start], extent.offsets[heads.stop])
    return extent.block.unpack(run.start, run.stop)[0].unflatten(0, (heads.stop - heads.start, -1))


def _positions(extent: Extent, heads: slice) -> Tensor:
    """[h, N] int32."""
    if extent.shared:
        return extent.positions.expand(heads.stop - heads.start, -1)
    return extent.positions[extent.offsets[heads.start] : extent.offsets[heads.stop]].unflatten(
        0, (heads.stop - heads.start, -1)
    )


def _free(extent: Extent, sinks: int, recent_from: int) -> list[tuple[int, int]]:
    """-> per head, where entries begin that are no sinks, and where recent ones begin."""
    bounds = torch.tensor([sinks, max(sinks, recent_from)], dtype=torch.int32, device=extent.positions.device)
    if extent.shared:
        first, stop = torch.searchsorted(extent.positions, bounds).tolist()
        return [(first, stop)] * extent.heads
    return [tuple(torch.searchsorted(extent.head_positions(h), bounds).tolist()) for h in range(extent.heads)]


def _barred(extent: Extent, head: int, first: int, stop: int) -> Tensor:
    """Slots of one head's entries that are read anyway."""
    device, count = extent.positions.device, extent.counts[head]
    return torch.cat([torch.arange(first, device=device), torch.arange(stop, count, device=device)])


def _together(
    extent: Extent, free: Sequence[tuple[int, int]], selections: Sequence[Selection], groups: Sequence[slice]
) -> Iterator[Gather]:
    """What is read of one extent: what was selected for its groups of heads, and apart from it what is read anyway."""
    if all(selection.slots is None for selection in selections):
        yield Gather(extent)
        return
    slots: list[Tensor] = []
    weights: list[Tensor] = []
    for selection, heads in zip(selections, groups, strict=True):
        its = selection.slots or tuple(torch.arange(*bounds, device=extent.positions.device) for bounds in free[heads])
        slots.extend(its)
        weights.extend(selection.log_weights or (torch.zeros(each.numel(), device=each.device) for each in its))
    weighted = any(selection.log_weights is not None for selection in selections)
    yield Gather(extent, tuple(slots), tuple(weights) if weighted else None)
    yield Gather(extent, tuple(_barred(extent, h, *bounds) for h, bounds in enumerate(free)))


def _event(layer: LayerCache, time: int, tokens: int, gathers: Sequence[Gather]) -> Fetched:
    """What replays a selection: everything that is read of the extents."""
    heads = range(gathers[0].extent.heads)
    weighted = any(gather.log_weights is not None for gather in gathers)
    positions = tuple(torch.cat([_read(gather, h) for gather in gathers]) for h in heads)
    weights = tuple(torch.cat([_weights(gather, h) for gather in gathers]) for h in heads) if weighted else None
    return Fetched(layer.index, time, tokens, layer.tail.first, positions, weights)


def _read(gather: Gather, head: int) -> Tensor:
    positions = gather.extent.head_positions(head)
    return positions if gather.slots is None else positions[gather.slots[head]]


def _weights(gather: Gather, head: int) -> Tensor:
    return torch.zeros(_read(gather, head).numel()) if gather.log_weights is None else gather.log_weights[head].cpu()


def _seed(plan_hash: str, layer: int, head: int, position: int) -> int:
    digest = hashlib.sha256(f"{plan_hash}/fetch/{layer}/{head}/{position}".encode()).digest()
    return int.from_bytes(digest[:7], "big")
