"""What every fetch method promises: of its index, its selections, and the reads and answers that go by them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from farspan.budget import Budget
from farspan.cache import SequenceCache
from farspan.methods.fetch.base import Asked, Candidates, Fetch, Sealed, Selection
from farspan.methods.order import Stream
from farspan.plan import Plan
from farspan.runtime.fetching import Fetching
from farspan.runtime.hf import Runtime
from farspan.runtime.hf_inspect import prepare_model
from farspan.runtime.reader import Job, read
from farspan.runtime.step import Row, Step
from farspan.testing.reads import need
from farspan.testing.tiny import tiny_model

SIZE = 16  # of heads
NEW = 9  # tokens fed after a read


def check_selecting(method: Fetch) -> None:
    """Indices and selections from random entries; raises AssertionError with what was broken."""
    for heads, group, tokens, counts in ((1, 1, 1, (90,)), (2, 3, 1, (200, 64)), (2, 2, 5, (130, 1, 77))):
        held = _held(method, heads, counts)
        for k in sorted({method.least, method.least * 3 + 1, sum(counts) // 2}):
            if k < method.least:
                continue
            asked = _asked(heads, group, tokens)
            given = [asked.queries, *(each.keys for each in held), *(t for e in held for t in e.index.values())]
            before = [tensor.clone() for tensor in given]
            selections = method.select(asked, held, k)
            same = all(torch.equal(a, b) for a, b in zip(before, given, strict=True))
            need(same, f"{method.name}.select changed a tensor it was given")
            _check_selections(method, selections, held, k)
            again = method.select(_asked(heads, group, tokens), held, k)
            alike = all(_same(a, b) for a, b in zip(selections, again, strict=True))
            need(alike, f"{method.name}.select gave two answers to one question")


def _held(method: Fetch, heads: int, counts: Sequence[int]) -> list[Candidates]:
    held, at, g = [], 0, torch.Generator().manual_seed(sum(counts))
    for count in counts:
        positions = torch.arange(at, at + count, dtype=torch.int32).expand(heads, -1)
        keys = torch.randn(heads, count, SIZE, generator=g)
        noted = {name: torch.rand(heads, count, generator=g) for name in method.notes}
        sealed = Sealed(layer=1, keys=keys, positions=positions, noted=noted)
        index = method.index(sealed)
        _check_index(method, sealed, index)
        first, stop = min(max(method.sinks - at, 0), count), max(count - 3, min(max(method.sinks - at, 0), count))
        ends = [max(first, stop - h) for h in range(heads)]  # heads need not have the same recent entries
        held.append(
            Candidates(index=index, first=[first] * heads, stop=ends, positions=positions, unpacked=lambda k=keys: k)
        )
        at += count
    return held


def _check_index(method: Fetch, sealed: Sealed, index: dict[str, Tensor]) -> None:
    who, (heads, count) = f"{method.name}.index", sealed.positions.shape
    again = method.index(sealed)
    need(
        set(again) == set(index) and all(torch.equal(index[name], again[name]) for name in index),
        f"{who} made two indices of one extent",
    )
    for name, tensor in index.items():
        need(tensor.shape[:1] == (heads,), f"{who} returned {name!r} as {tuple(tensor.shape)}, not [h, ...]")
    held = sum(tensor.untyped_storage().nbytes() for tensor in index.values())
    announced = method.index_bytes(count, heads, SIZE, sealed.keys.dtype)
    need(held <= announced, f"{method.name}.index_bytes announced {announced} bytes, and its index holds {held}")


def _asked(heads: int, group: int, tokens: int) -> Asked:
    queries = torch.randn(heads, group, tokens, SIZE, generator=torch.Generator().manual_seed(tokens))
    return Asked(
        layer=1,
        queries=queries,
        positions=torch.arange(900, 900 + tokens, dtype=torch.int32),
        scaling=SIZE**-0.5,
        reading=False,
        memory={},
        anyway=lambda: torch.zeros(heads, group, tokens),
        seed=3,
    )


def _check_selections(method: Fetch, selections: Sequence[Selection], held: Sequence[Candidates], k: int) -> None:
    who = f"{method.name}.select"
    need(len(selections) == len(held), f"{who} returned {len(selections)} selections for {len(held)} extents")
    heads = held[0].positions.shape[0]
    if all(selection.slots is None for selection in selections):
        return
    read = [0] * heads
    for selection, each in zip(selections, held, strict=True):
        slots = selection.slots
        need(slots is not None and len(slots) == heads, f"{who} selected for other than {heads} heads")
        for head, its in enumerate(slots or ()):
            inside = not its.numel() or (int(its[0]) >= each.first[head] and int(its[-1]) < each.stop[head])
            need(inside and bool((its.diff() > 0).all()), f"{who} returned slots that are no ascending candidates")
            read[head] += its.numel()
            if selection.log_weights is not None:
                its_weights = selection.log_weights[head]
                finite = its_weights.shape == its.shape and bool(its_weights.isfinite().all())
                need(finite, f"{who} returned log-weights that are not one number per slot")
    need(max(read) <= k, f"{who} returned {max(read)} entries for a head, of {k} that were allowed")


def _same(a: Selection, b: Selection) -> bool:
    if a.slots is None or b.slots is None:
        return a.slots is b.slots
    pairs = zip((*a.slots, *(a.log_weights or ())), (*b.slots, *(b.log_weights or ())), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


class FetchReads:
    """Real reads and the tokens after them on one tiny model, under budgets of everything and of little."""

    def __init__(self, kind: str, method: Fetch) -> None:
        self.kind, self.method = kind, dataclasses.replace(method, recent=min(method.recent, 16))
        self.prepared, self.plain = prepare_model(tiny_model(kind)), tiny_model(kind)
        self.lengths = (40, 150 + 3 * method.least)

    def check(self) -> None:
        """Everything is full attention; little is less, and the same in any batch; nothing is lost."""
        length = self.lengths[-1]
        logits, _ = self._fed([length], 2 * length)
        want = self.plain(_text(length + NEW)[None]).logits[0, length:]
        gap, allowed = float((logits[0] - want).abs().max()), 1e-5 * max(1.0, float(want.abs().max()))
        need(gap <= allowed, f"{self._where}: everything fetched, logits are off by {gap:.2g} (allowed {allowed:.2g})")
        little = self.method.least
        alone = [self._fed([each], little) for each in self.lengths]
        together, caches = self._fed(list(self.lengths), little)
        for (one, (cache,)), packed, other in zip(alone, together, caches, strict=True):
            close = torch.allclose(one[0], packed, atol=1e-3, rtol=1e-3)
            need(close, f"{self._where}: in a batch, logits differ from those of a single sequence")
            held = [cache.layers[i].held(layer.heads) for i, layer in enumerate(self.prepared.layout.layers)]
            same = held == [other.layers[i].held(layer.heads) for i, layer in enumerate(self.prepared.layout.layers)]
            whole = all(min(n) == cache.seen for n, at in zip(held, cache.layers, strict=True) if at.window is None)
            need(same and whole, f"{self._where}: of {cache.seen} tokens seen, layers hold {held}")

    @property
    def _where(self) -> str:
        return f"{self.method.name} on {self.kind}"

    def _fed(self, lengths: list[int], budget: int) -> tuple[list[Tensor], list[SequenceCache]]:
        """Reads of these lengths, then `NEW` tokens each -> the logits of these, and the caches."""
        plan = Plan((dataclasses.replace(self.method, budget=Budget.parse(budget)), Stream(chunk=64)))
        runtime = Runtime(self.prepared, self.prepared.positions(2 * max(self.lengths)))
        jobs = [Job(self.prepared.layout.empty(), _text(length), plan) for length in lengths]
        read(runtime, jobs)
        ids = [_text(length + NEW)[length:] for length in lengths]
        step = Step([Row(job.cache, NEW, fetching=Fetching.of(plan)) for job in jobs])
        with torch.inference_mode():
            logits = runtime.logits(runtime.forward(torch.cat(ids), step))
        step.feed(ids)
        return list(logits.split(NEW)), [job.cache for job in jobs]


def _text(length: int) -> Tensor:
    return torch.randint(3, 131, (4096,), generator=torch.Generator().manual_seed(0))[:length]
