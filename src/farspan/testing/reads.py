"""Real reads of a plan on tiny models: what they must hold, weigh and answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from farspan.budget import Budget
from farspan.cache import LayerCache, SequenceCache
from farspan.cache.sequence import Patterned
from farspan.methods.fetch.base import Fetch
from farspan.methods.order import Layerwise, Order, Stream
from farspan.methods.retain.base import Scorer
from farspan.plan import RETAIN, Plan
from farspan.runtime.fetching import Fetching
from farspan.runtime.hf import Runtime
from farspan.runtime.hf_inspect import prepare_model
from farspan.runtime.reader import Job, read
from farspan.runtime.retention import Retention
from farspan.runtime.step import Row, Step
from farspan.testing.tiny import tiny_model


def need(condition: bool, sentence: str) -> None:
    """Raise AssertionError with the sentence, which says what was broken, unless the condition holds."""
    if not condition:
        raise AssertionError(sentence)


def allocated_bytes(*held: Any) -> int:
    """Bytes of every storage reachable from caches, layers or extents, each counted once, whoever holds it.

    What `nbytes` must equal; found by walking objects, not by asking them. Token ids, events and the few offsets that a
    kernel prepares are not KV.
    """
    storages = {}
    for tensor in _tensors(held):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _tensors(thing: Any) -> Iterator[Tensor]:
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, dict):
        yield from _tensors(tuple(thing.values()))
    elif isinstance(thing, tuple | list):
        for each in thing:
            yield from _tensors(each)
    elif type(thing).__module__.startswith("farspan."):
        slots = [name for cls in type(thing).__mro__ for name in getattr(cls, "__slots__", ())]
        for name in {*slots, *getattr(thing, "__dict__", {})} - {"_fed", "events", "prepared"}:
            yield from _tensors(getattr(thing, name))


class Reads:
    """Real reads of a plan on one tiny model, whose unprepared twin says what the logits should be."""

    def __init__(self, kind: str, plan: Plan) -> None:
        self.kind, self.plan = kind, plan
        self.prepared = prepare_model(tiny_model(kind))
        self.plain = tiny_model(kind)
        scorer = plan.get("score")
        floor, observes = (scorer.floor, scorer.observes()) if isinstance(scorer, Scorer) else (0, 0)
        fetch = plan.get("fetch")
        floor = max(floor, fetch.least) if isinstance(fetch, Fetch) else floor
        self.chunk, self.budget = max(48, 2 * observes), floor + 12
        self.lengths = (self.budget // 2 + 9, 2 * self.budget + 5, 3 * self.budget + 150)
        given = plan.methods and plan.methods[0].slot == "order"
        both: list[Order] = [Stream(chunk=self.chunk), Layerwise(chunk=self.chunk)]
        narrow = [method.orders for method in plan.methods if method.orders]
        can = [order for order in both if all(order.name in names for names in narrow)]
        self.orders = [plan.order] if given else can

    def check(self) -> None:
        """Every order, several lengths, alone and together; raises AssertionError."""
        for order in self.orders:
            single = [self._checked(order, length) for length in self.lengths]
            together = self._read(order, self.lengths, self.budget)
            for length, alone, packed in zip(self.lengths, single, together, strict=True):
                where = f"{self._where(order)}, {length} tokens"
                need(_same_held(alone, packed, 1e-3), f"{where}: read in a batch, it holds something else than alone")
            if self.plan.get("store") is None:
                self._check_identity(order)

    def _where(self, order: Order) -> str:
        return f"{self.plan} on {self.kind} in {order.name} order"

    def _plan(self, order: Order, budget: int) -> Plan:
        methods = [method for method in self.plan.methods if method.slot != "order"]
        retain = [method for method in methods if isinstance(method, Scorer | Fetch)]
        rest = [method for method in methods if not isinstance(method, Scorer | Fetch)]
        return Plan((*(dataclasses.replace(m, budget=Budget.parse(budget)) for m in retain), *rest, order))

    def _runtime(self) -> Runtime:
        method: Any = self.plan.get("positions")
        return Runtime(self.prepared, self.prepared.positions(2 * max(self.lengths), method))

    def _read(self, order: Order, lengths: Sequence[int], budget: int, *, trace: bool = False) -> list[SequenceCache]:
        plan = self._plan(order, budget)
        jobs = [Job(self.prepared.layout.empty(trace=trace), _text(length), plan) for length in lengths]
        read(self._runtime(), jobs)
        return [job.cache for job in jobs]

    def _checked(self, order: Order, length: int) -> SequenceCache:
        where = f"{self._where(order)}, {length} tokens"
        cache, again = (self._read(order, [length], self.budget)[0] for _ in range(2))
        need(
            _same_held(cache, again, 0.0) and cache.nbytes == again.nbytes, f"{where}: two reads hold different things"
        )
        need((cache.seen, cache.next_position) == (length, length), f"{where}: {cache.seen} tokens count as seen")
        storage = allocated_bytes(cache)
        need(cache.nbytes == storage, f"{where}: {cache.nbytes} bytes are reported, {storage} are allocated")
        limited = any(self.plan.get(slot) for slot in RETAIN)
        shares = self._shares(order, length) if limited else {}
        for layer, layout in zip(cache.layers, self.prepared.layout.layers, strict=True):
            held = layer.held(layout.heads)
            limit = layout.window - 1 if layout.window else shares.get(layer.index, length)
            need(sum(held) <= limit * len(held), f"{where}: layer {layer.index} holds {held}, over {limit} on average")
            live = [head for head in range(layout.heads) if head not in layer.pruned]
            need(min(held[h] for h in live) > 0, f"{where}: a head of layer {layer.index} was emptied, {held}")
            need(sum(held) == sum(held[h] for h in live), f"{where}: pruned heads of layer {layer.index} hold entries")
            for head in live:
                at = layer.positions(head).tolist()
                ordered = at == sorted(set(at)) and at[0] >= 0 and at[-1] < length
                need(ordered, f"{where}: layer {layer.index} holds positions {at}")
        return cache

    def _shares(self, order: Order, length: int) -> Mapping[int, int]:
        """What each full-attention layer may hold per head: the budget, unless an allocator treats layers apart."""
        retention = Retention.of(self._plan(order, self.budget), self.budget, self.prepared.layout, length)
        heads = {i: layer.heads for i, layer in enumerate(self.prepared.layout.layers) if layer.window is None}
        held, most = sum(retention.share(i) * n for i, n in heads.items()), self.budget * sum(heads.values())
        need(held <= most, f"{self._where(order)}: layers share out {held} entries of a budget of {most}")
        return {index: retention.share(index) for index in heads}

    def _check_identity(self, order: Order) -> None:
        ids, length = _text(max(self.lengths) + 9), max(self.lengths)
        runtime, (cache,) = self._runtime(), self._read(order, [length], length, trace=True)
        if any(isinstance(event, Patterned) for event in (cache.events.log if cache.events else ())):
            return  # read under a pattern that hides something, it says something else
        if any(layer.pruned for layer in cache.layers):
            return  # and without some heads too
        fetching = Fetching.of(self._plan(order, length))
        with torch.inference_mode():
            hidden = runtime.forward(ids[length:], Step([Row(cache, 9, fetching=fetching)]))
            got, want = runtime.logits(hidden), self.plain(ids[None]).logits[0, length:]
        gap, allowed = float((got - want).abs().max()), 1e-5 * max(1.0, float(want.abs().max()))
        need(
            gap <= allowed, f"{self._where(order)}: at full budget logits are off by {gap:.2g} (allowed {allowed:.2g})"
        )


def _text(length: int) -> Tensor:
    """The beginning of the one text that is read."""
    return torch.randint(3, 131, (4096,), generator=torch.Generator().manual_seed(0))[:length]


def _same_held(a: SequenceCache, b: SequenceCache, tolerance: float) -> bool:
    """Whether two caches hold the same positions, and keys and values that differ by `tolerance` at most."""
    for one, two in zip(a.layers, b.layers, strict=True):
        if [e.offsets for e in one.extents] != [e.offsets for e in two.extents] or len(one.tail) != len(two.tail):
            return False
        pairs = list(zip(_held(one), _held(two), strict=True))
        if any(x.shape != y.shape or not torch.allclose(x, y, rtol=tolerance, atol=tolerance) for x, y in pairs):
            return False
    return True


def _held(layer: LayerCache) -> list[Tensor]:
    tail = [layer.tail.keys, layer.tail.values, layer.tail.positions()] if len(layer.tail) else []
    return [tensor for extent in layer.extents for tensor in extent.entries()] + tail
