"""Reading: chunked prefill in stream or layerwise order, within the memory the plan promises."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from farspan.cache import LayerCache, SequenceCache
from farspan.errors import DocumentError, PlanError
from farspan.methods.order.base import equal_chunks
from farspan.methods.order.layerwise import Layerwise
from farspan.methods.retain.base import Scorer
from farspan.plan import Plan
from farspan.runtime.fetching import Fetching
from farspan.runtime.layout import ModelLayout
from farspan.runtime.packing import Packing, seal_layer
from farspan.runtime.peak import Peak
from farspan.runtime.prefilling import Prefilling
from farspan.runtime.pruning import Pruning
from farspan.runtime.retention import Moment, Retention
from farspan.runtime.step import Meter, Row, Step
from farspan.runtime.surprisal import surprisal
from farspan.signals import Rotations


class Body(Protocol):
    """What reading needs of a model: its layers, as its own forward would run them."""

    @property
    def layout(self) -> ModelLayout:
        """Layers, heads, windows."""
        ...

    def forward(self, ids: Tensor, step: Step) -> Tensor:
        """ids [ΣT] through all layers -> last hidden states [ΣT, hidden] (after the final norm)."""
        ...

    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        """-> [ΣT, hidden], what enters layer 0."""
        ...

    def run_layers(self, first: int, last: int, hidden: Tensor, step: Step) -> Tensor:
        """Layers first..last (inclusive) on hidden [ΣT, hidden]."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [n, hidden] after the final norm -> [n, V]."""
        ...

    @property
    def rotations(self) -> Rotations | None:
        """How positions are rotated into queries and keys, where they are."""
        ...


@dataclass(frozen=True)
class Progress:
    """Where a read stands: `done` of `total` tokens (in layerwise order, layers count as fractions of them)."""

    done: int
    total: int
    seconds: float
    held_bytes: int


ProgressHook = Callable[[Progress], None]


@dataclass
class Job:
    """One sequence to read: what has been seen before lies in `cache`, `ids` [T] come next."""

    cache: SequenceCache
    ids: Tensor
    plan: Plan
    probe: Tensor | None = None
    nontext: Tensor | None = None
    """[T] bool: which of `ids` the caller marked as something other than text."""
    kinds: Tensor | None = None
    """[V] uint8: which kind each token of the vocabulary is, for scorers that know kinds."""
    goes_on: bool = False
    """True where what was read before is not to be decided about again."""

    @property
    def total(self) -> int:
        """Tokens seen when the read is over."""
        return self.cache.seen + self.ids.numel()


@dataclass(frozen=True)
class Report:
    """What a read cost: seconds, and bytes of KV at most (all sequences of the batch together), as measured and as
    stated before it began.
    """

    seconds: float
    peak_bytes: int
    stated_peak_bytes: int
    pairs: tuple[float | None, ...] = ()
    """Of each job: the share of a dense read's pairs that its patterns showed; None without patterns."""


def read(body: Body, jobs: Sequence[Job], progress: ProgressHook | None = None) -> Report:
    """Read every job's tokens into its cache; all share one plan. On error or interrupt the caches are garbage:
    callers read into forks.
    """
    began = time.perf_counter()
    plan = jobs[0].plan
    if any(job.plan != plan for job in jobs):
        raise PlanError("one batch is read with one plan")
    if any(not job.ids.numel() for job in jobs):
        raise DocumentError("there is no token to read")
    body.layout.check(plan)
    meter = Meter(now=sum(job.cache.nbytes for job in jobs))
    meter.peak = meter.now
    tracker = _Tracker(began, sum(job.ids.numel() for job in jobs), meter, progress)
    reads = [_Read(body, job) for job in jobs]
    stated = sum(each.stated_peak(body.layout) for each in reads)
    with torch.inference_mode():
        if isinstance(plan.order, Layerwise):
            for each in reads:
                _layerwise(body, each, tracker)
        else:
            _stream(body, reads, tracker)
    pairs = tuple(each.prefilling and each.prefilling.pairs.share for each in reads)
    return Report(time.perf_counter() - began, meter.peak, stated, pairs)


def stated_peak(body: Body, job: Job) -> int:
    """Bytes of KV that reading this job will never exceed, known without reading it; raises as `read` would."""
    body.layout.check(job.plan)
    return _Read(body, job).stated_peak(body.layout)


@dataclass
class _Tracker:
    began: float
    total: int
    meter: Meter
    hook: ProgressHook | None
    done: float = 0.0

    def advance(self, tokens: float) -> None:
        self.done += tokens
        if self.hook is not None:
            self.hook(Progress(round(self.done), self.total, time.perf_counter() - self.began, self.meter.now))


class _Read:
    """A job with its plan resolved: which rows its chunks become."""

    def __init__(self, body: Body, job: Job) -> None:
        self.job, self.cache, layout = job, job.cache, body.layout
        self.plan = layout.settled(job.plan, job.total)
        self.began, self.rotations = job.cache.seen, body.rotations
        self.last_hidden: Tensor | None = None  # of the token before the next chunk, for scorers that go by predictions
        scorer = self.plan.get("score")
        self.packer = Packing.of(self.plan, body.rotations)
        self.cache.lead(layout.leaders(self.plan))
        total = job.cache.next_position + job.ids.numel()
        self.prefilling = Prefilling.of(self.plan, len(layout.layers), job.cache.next_position, total)
        self.fetching = Fetching.of(self.plan)
        self.pruning = Pruning.of(self.plan, layout)
        self.retention: Retention | None = None
        if isinstance(scorer, Scorer):
            assert self.plan.budget is not None, "a plan with a scorer has a budget"
            entries = layout.budget(self.plan, self.plan.budget, job.total)
            self.retention = Retention.of(self.plan, entries, layout, job.total)
            for layer in self.cache.layers:
                if layer.window is None and not job.goes_on:
                    layer.sealed = 0  # appending decides anew over old and new
        minimum = self.retention.scorer.observes() if self.retention else 1
        self.chunks = equal_chunks(job.ids.numel(), self.plan.order.chunk, max(minimum, 1))
        self.all_ids = torch.cat([self.cache.ids(), job.ids.to(torch.int32)])
        self.nontext: Tensor | None = None
        self.kinds = None if job.kinds is None else job.kinds[self.all_ids.long()]
        if job.nontext is not None:
            self.nontext = torch.cat([job.nontext.new_zeros(job.cache.seen), job.nontext])
        decides = job.probe is not None and self.retention is not None  # a probe's queries serve decisions only
        decides = decides and not (self.retention and self.retention.scorer.predicted)
        self.probe = job.probe if decides and job.probe is not None else torch.empty(0, dtype=torch.int64)

    @property
    def capacity(self) -> int:
        """Tokens a tail holds before its first decision or seal; plus the probe that is lent."""
        new, layerwise = self.job.ids.numel(), isinstance(self.plan.order, Layerwise)
        if self.fetching is not None and self.fetching.method.read:
            return 0
        if self.packer is not None and self.retention is None and not layerwise:
            return 0
        if self.retention is not None and not layerwise:
            new = min(new, self.retention.smallest)  # a layer with more to hold grows when it needs to
        return new + self.probe.numel()

    def stated_peak(self, layout: ModelLayout) -> int:
        """Bytes of KV that this read will never exceed; see `runtime.peak`."""
        peak = Peak(
            tokens=self.all_ids.numel(),
            chunk=max(b - a for a, b in self.chunks),
            probe=self.probe.numel(),
            entries=self.retention.entries if self.retention else None,
            store=self.packer and self.packer.store,
            spills=self.packer is not None and self.packer.place is not None,
            layerwise=isinstance(self.plan.order, Layerwise),
            appending=self.cache.seen > 0,
            shares=self.retention.shares if self.retention else {},
            state=self.retention.scorer.state_bytes if self.retention else 0,
            folds=self.retention is not None and self.retention.folder is not None,
            together=self.retention.scorer.predicted if self.retention else False,
            fetch=self.fetching and self.fetching.method,
        )
        return self.cache.nbytes + peak.stated(layout)

    def row(self, chunk: int, *, layerwise: bool) -> tuple[Row, Tensor]:
        """-> the row and its token ids (with the probe where a decision follows)."""
        start, stop = self.chunks[chunk]
        last = chunk == len(self.chunks) - 1
        decides = last or not layerwise
        lent = self.probe if decides else self.probe[:0]
        row = Row(
            cache=self.cache,
            length=stop - start + lent.numel(),
            probe=lent.numel(),
            capacity=self.capacity,
            packer=self.packer,
            retention=self.retention,
            pruning=self.pruning,
            prefilling=self.prefilling,
            fetching=self.fetching,
            reading=True,
            decide=decides,
            offset=start if layerwise else 0,
            token_ids=self.all_ids,
            began=self.began,
            rotations=self.rotations,
            nontext=self.nontext,
            kinds=self.kinds,
        )
        ids = self.job.ids[start:stop]
        return row, torch.cat([ids, lent]) if lent.numel() else ids

    def fed(self, chunk: int) -> Tensor:
        """The ids of a chunk as a view: a small copy per chunk that stays would leave the freed memory in pieces."""
        start, stop = self.chunks[chunk]
        before = self.all_ids.numel() - self.job.ids.numel()
        return self.all_ids[before + start : before + stop]

    def passed(self, body: Body, hidden: Tensor, chunk: int, meter: Meter) -> None:
        """A chunk has passed all layers, with last hidden states [T, hidden] (a probe's behind them): for what goes by
        predictions.
        """
        decides = self.retention is not None and self.retention.scorer.predicted
        notes = self.fetching is not None and "surprisal" in self.fetching.method.notes
        if not decides and not notes:
            return
        start, stop = self.chunks[chunk]
        hidden = hidden[: stop - start]
        known = surprisal(body, hidden, self.job.ids[start:stop], self.last_hidden)
        self.last_hidden = hidden[-1:].clone()
        if self.fetching is not None and notes:
            self.fetching.notes.surprise(self.began + start, known)
        if decides:
            self._decide(body, hidden, known, chunk, meter)

    def _decide(self, body: Body, hidden: Tensor, known: Tensor, chunk: int, meter: Meter) -> None:
        """For scorers that go by predictions: `known` [T] is how each token of the chunk surprised."""
        assert self.retention is not None
        start, stop = self.chunks[chunk]
        seen = self.began + stop
        positions = torch.arange(self.began + start, seen, dtype=torch.int32, device=hidden.device)
        for layer in self.cache.layers:
            if layer.window is not None:
                continue
            layout, before = body.layout.layers[layer.index], layer.nbytes
            moment = Moment(
                seen=seen,
                queries=hidden.new_empty(layout.query_heads, 0, layout.head_size),
                query_positions=positions,
                probed=False,
                scaling=layout.scaling,
                token_ids=self.all_ids[:seen],
                began=self.began,
                surprisal=known,
            )
            transit = self.retention.decide(layer, moment, self.cache.events)
            meter.change(before, layer.nbytes, transit)

    def seal(self, layer: LayerCache, seen: int) -> None:
        """No decision of this read can touch this layer any more."""
        if layer.window is not None:
            layer.trim_window()
            return
        seal_layer(layer, self.packer, seen, self.cache.events)
        if self.retention is not None and self.retention.scorer.decode is not None:
            layer.seal_tail(None)  # what is kept back belongs to what was read: a budget for answers must not touch it
        if self.fetching is not None:
            self.fetching.index(layer)


def _stream(body: Body, reads: list[_Read], tracker: _Tracker) -> None:
    """Chunk by chunk through all layers; sequences side by side, packed, each with its own chunks."""
    for index in range(max(len(r.chunks) for r in reads)):
        live = [r for r in reads if index < len(r.chunks)]
        rows, ids = zip(*(r.row(index, layerwise=False) for r in live), strict=True)
        step = Step(list(rows), meter=tracker.meter)
        hidden = body.forward(torch.cat(ids), step)
        for each, part in zip(live, hidden.split([row.length for row in rows]), strict=True):
            each.passed(body, part, index, tracker.meter)
        new = [r.fed(index) for r in live]
        step.feed(new)
        tracker.advance(sum(t.numel() for t in new))
    for each in reads:
        for layer in each.cache.layers:
            before = layer.nbytes
            each.seal(layer, each.cache.seen)
            tracker.meter.change(before, layer.nbytes, layer.nbytes if each.packer is not None else 0)


def _layerwise(body: Body, each: _Read, tracker: _Tracker) -> None:
    """Layer by layer over the whole text: dense attention, one decision at the layer's end.

    Held meanwhile: the hidden states of every token, and one full layer.
    """
    rows = [each.row(i, layerwise=True) for i in range(len(each.chunks))]
    spans, start = [], 0
    for row, ids in rows:
        spans.append(slice(start, start + ids.numel()))
        start += row.length
    hidden = None
    for (row, ids), span in zip(rows, spans, strict=True):
        embedded = body.embed(ids, Step([row]).positions)
        hidden = embedded.new_empty(start, embedded.shape[-1]) if hidden is None else hidden
        hidden[span] = embedded
    assert hidden is not None
    layers = len(each.cache.layers)
    for index, layer in enumerate(each.cache.layers):
        for (row, _), span in zip(rows, spans, strict=True):
            step = Step([row], meter=tracker.meter)
            hidden[span] = body.run_layers(index, index, hidden[span], step)
            tracker.advance((row.length - row.probe) / layers)
        before = layer.nbytes
        each.seal(layer, each.cache.seen + each.job.ids.numel())
        tracker.meter.change(before, layer.nbytes, layer.nbytes if each.packer is not None else 0)
    each.cache.feed(each.job.ids)
