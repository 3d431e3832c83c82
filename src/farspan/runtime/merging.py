"""Reading a text in pieces that lose tokens and merge on their way up the layers, depth first.

A piece of height 0 is a run of the text between its two ends; one of height k is two of height k - 1. Of every height
at most one piece waits for its neighbour, so what is held grows with the logarithm of the number of pieces.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from farspan.cache import Extent, SequenceCache
from farspan.cache.sequence import Kept, Merged, Replaced
from farspan.errors import BudgetError, PlanError
from farspan.methods.order.base import equal_chunks
from farspan.methods.parallel._merging import Asking, Merging
from farspan.methods.retain.base import keep
from farspan.runtime.layout import ModelLayout
from farspan.runtime.packing import Packing, seal_layer
from farspan.runtime.reader import Body, Job, Progress, ProgressHook, Report
from farspan.runtime.step import Meter, Row, Step


@dataclass(frozen=True)
class Hierarchy:
    """A text on its way to be read so. Every piece begins with the first `head` of `job.ids` and ends with the last
    `rear` of them and the probe; between them is one of `cuts` [start, stop), 2^height of equal length.
    """

    job: Job
    method: Merging
    head: int
    rear: int
    cuts: tuple[tuple[int, int], ...]
    stops: tuple[int, ...]
    """By height: how many layers a piece has passed when it loses tokens."""
    budget: int
    """Tokens held in the end."""

    @classmethod
    def of(cls, job: Job, prefix: int, method: Merging, layout: ModelLayout) -> Hierarchy:
        """`prefix` tokens of `job.ids` belong to no document. Raises PlanError for ends that fill a piece or too few
        layers, BudgetError for a budget that the ends fill or the last piece does not.
        """
        total, probe = job.ids.numel(), 0 if job.probe is None else job.probe.numel()
        head = min(prefix + method.ends, total - 1)
        rear = min(method.ends, total - head)
        free = method.chunk - head - rear - probe
        if free < 2:
            raise PlanError(
                f"{method.name}: the ends of every piece, {head} + {rear + probe} tokens with template and probe, fill "
                f"chunk={method.chunk}; give chunk={method.chunk + 2 - free} or more, or fewer ends"
            )
        between = total - head - rear
        height = (-(-between // free) - 1).bit_length() if between else 0
        edges = [head + between * i // 2**height for i in range(2**height + 1)]
        stops = method.stops(len(layout.layers), height)
        budget = method.chunk
        if method.budget is not None:
            budget = method.budget.resolve(tokens=total, size=layout.size_of(job.plan, total))
            _check_budget(method, min(budget, total), min(head + rear + 1, total), method.chunk if height else total)
        return cls(job, method, head, rear, tuple(pairwise(edges)), tuple(stops), min(budget, total))

    @property
    def height(self) -> int:
        """How many times a piece is merged."""
        return len(self.stops) - 1

    @property
    def probe(self) -> int:
        """Tokens that are only lent."""
        return 0 if self.job.probe is None else self.job.probe.numel()

    @property
    def tail(self) -> int:
        """Tokens that end every piece."""
        return self.rear + self.probe

    @property
    def longest(self) -> int:
        """Tokens of the longest run between the ends."""
        return max(b - a for a, b in self.cuts)

    @property
    def next_position(self) -> int:
        """Where the first token after the text stands: all pieces stand at the same positions."""
        return self.head + self.longest + self.rear

    @property
    def left(self) -> tuple[int, ...]:
        """By height: how many tokens a piece has left after it lost some, at most."""
        free = self.method.chunk - self.head - self.tail
        half = self.head + free // 2 + self.tail
        return (*[half] * self.height, self.budget + self.probe)

    @property
    def sizes(self) -> tuple[int, ...]:
        """By height: how many tokens a piece has before that, at most."""
        sizes = [self.head + self.longest + self.tail]
        for left in self.left[:-1]:
            sizes.append(2 * min(sizes[-1], left) - self.head - self.tail)
        return tuple(sizes)

    def stated(self, layout: ModelLayout) -> int:
        """Bytes of KV that this read will never exceed: a piece of each height that waits, the piece that is read, and
        one of its layers twice.
        """
        its = [layer.heads * layer.entry_bytes(layout.dtype) for layer in layout.layers]
        most = 0
        for height, size in enumerate(self.sizes):
            waiting = sum(
                min(self.sizes[k], self.left[k]) * sum(its[: self.stops[k]]) for k in range(height, self.height)
            )
            most = max(most, waiting + size * (sum(its[: self.stops[height]]) + max(its)))
        return most + 4 * self.budget * (len(its) + 1)  # the tokens' numbers, one layer's twice

    def held(self, layout: ModelLayout) -> int:
        """Bytes of KV that stay."""
        last = min(self.budget, self.sizes[-1] - self.probe)
        return layout.size_of(self.job.plan, self.job.ids.numel())(last)


def _check_budget(method: Merging, budget: int, least: int, most: int) -> None:
    comes = f"{method.name}:{method.budget} comes to {budget} tokens"
    if budget < least:
        raise BudgetError(
            f"{comes}, and the text's ends alone are {least - 1}; give a budget of at least {least}, or fewer ends"
        )
    if budget > most:
        raise BudgetError(f"{comes}, and the last piece holds no more than chunk={most}; give chunk={budget}, or less")


@dataclass
class _Piece:
    """Tokens on their way up: `numbers` [n] in the text (a probe's come after all), where they stand, their hidden
    states [n, hidden], and keys [H, n, D] and values of every layer passed.
    """

    numbers: Tensor
    positions: Tensor
    hidden: Tensor
    entries: list[tuple[Tensor, Tensor]]


@dataclass
class _Reading:
    """One read by merging, going on."""

    body: Body
    tree: Hierarchy
    meter: Meter
    hook: ProgressHook | None
    began: float
    done: float = 0.0

    def piece(self, height: int, number: int) -> _Piece:
        """The `number`-th piece of a height, after it has lost what it may not keep."""
        if height:
            left, right = (self.piece(height - 1, 2 * number + i) for i in range(2))
            piece = self._merged(left, right)
        else:
            piece = self._leaf(*self.tree.cuts[number])
        stops, most = self.tree.stops, self.tree.left[height]
        asking = self._passed(piece, stops[height - 1] if height else 0, stops[height], most)
        if asking is not None:
            self._reduce(piece, asking, most)
        self._advance(height)
        return piece

    def _leaf(self, start: int, stop: int) -> _Piece:
        tree, job = self.tree, self.tree.job
        total, behind = job.ids.numel(), tree.head + tree.longest
        ids = job.ids if job.probe is None else torch.cat([job.ids, job.probe])
        runs = (range(tree.head), range(start, stop), range(total - tree.rear, total + tree.probe))
        numbers = torch.tensor([token for run in runs for token in run])
        stands = (range(tree.head + stop - start), range(behind, behind + tree.tail))
        positions = torch.tensor([position for run in stands for position in run])
        return _Piece(numbers, positions, self.body.embed(ids[numbers], positions), [])

    def _merged(self, left: _Piece, right: _Piece) -> _Piece:
        """Two neighbours as one: what they begin with, which nothing differed before, what is between their ends one
        after the other, and their last tokens averaged.
        """
        for layer, one in enumerate(left.entries):
            other = right.entries.pop(0)  # freed layer by layer, so that no more than one is held twice
            keys, values = (self._joined(a, b, 1) for a, b in zip(one, other, strict=True))
            self.meter.change(_bytes(one) + _bytes(other), _bytes((keys, values)), _bytes((keys, values)))
            left.entries[layer] = keys, values
        ends = slice(0, left.numbers.numel() - self.tree.tail), slice(self.tree.head, None)
        numbers, positions = (
            torch.cat([a[ends[0]], b[ends[1]]])
            for a, b in ((left.numbers, right.numbers), (left.positions, right.positions))
        )
        return _Piece(numbers, positions, self._joined(left.hidden, right.hidden, 0), left.entries)

    def _joined(self, left: Tensor, right: Tensor, axis: int) -> Tensor:
        head, tail = self.tree.head, self.tree.tail
        one, other = (t.split([head, t.shape[axis] - head - tail, tail], axis) for t in (left, right))
        return torch.cat([one[0], one[1], other[1], (one[2] + other[2]) / 2], axis)

    def _passed(self, piece: _Piece, first: int, stop: int, most: int) -> Asking | None:
        """Run a piece through layers first..stop-1 -> who asks in the last of them, where more than `most` tokens are
        left.
        """
        tokens, cache = piece.numbers.numel(), self.body.layout.empty()
        at = self.tree.method.asks(tokens) if tokens > most else torch.empty(0, dtype=torch.int64)
        asked: list[Tensor] = []
        for start, end in equal_chunks(tokens, self.tree.job.plan.order.chunk):
            span, its = slice(start, end), at[(at >= start) & (at < end)] - start

            def note(layer: int, query: Tensor, out: Tensor, its: Tensor = its) -> None:
                if layer == stop - 1:
                    asked.append(query[:, its.to(query.device)].clone())

            row = Row(cache, end - start, capacity=tokens, reading=True, offset=start, stands=piece.positions[span])
            step = Step([row], meter=self.meter, observer=note)
            piece.hidden[span] = self.body.run_layers(first, stop - 1, piece.hidden[span], step)
        tails = [cache.layers[layer].tail for layer in range(first, stop)]
        piece.entries += [(tail.keys, tail.values) for tail in tails]
        if not at.numel():
            return None
        scaling = self.body.layout.layers[stop - 1].scaling
        return Asking(torch.cat(asked, 1), at, tails[-1].keys, piece.positions, scaling)

    def _reduce(self, piece: _Piece, asking: Asking, most: int) -> None:
        """Of a piece's tokens `most` stay, both ends among them, in all layers that it has passed."""
        scores = self.tree.method.significance(asking).float().clone()
        if scores.shape != piece.numbers.shape or bool(scores.isnan().any()):
            wanted = f"[{piece.numbers.numel()}] numbers"
            raise PlanError(f"{self.tree.method.name} gave significance {list(scores.shape)}; it gives {wanted}")
        scores[: self.tree.head] = torch.inf
        scores[scores.numel() - self.tree.tail :] = torch.inf
        stays = keep(scores, most)
        for layer, entries in enumerate(piece.entries):
            keys, values = (each[:, stays] for each in entries)
            self.meter.change(_bytes(entries), _bytes((keys, values)), _bytes((keys, values)))
            piece.entries[layer] = keys, values
        its = stays.cpu()
        piece.numbers, piece.positions = piece.numbers[its], piece.positions[its]
        piece.hidden = piece.hidden[stays]

    def _advance(self, height: int) -> None:
        """A piece's layers are a share of all layers of its share of the text."""
        stops, total = self.tree.stops, self.tree.job.ids.numel()
        layers = stops[height] - (stops[height - 1] if height else 0)
        self.done += total * layers / stops[-1] / 2 ** (self.tree.height - height)
        if self.hook is not None:
            self.hook(Progress(round(self.done), total, time.perf_counter() - self.began, self.meter.now))


def read_merged(body: Body, tree: Hierarchy, progress: ProgressHook | None = None) -> tuple[SequenceCache, Report]:
    """Read a text by merging -> what is held of it, the same tokens in every layer and head."""
    began, meter = time.perf_counter(), Meter()
    cache, total = tree.job.cache, tree.job.ids.numel()
    with torch.inference_mode():
        piece = _Reading(body, tree, meter, progress, began).piece(tree.height, 0)
        stays = int((piece.numbers < total).sum())
        numbers = piece.numbers[:stays].to(torch.int32)
        packing = Packing.of(tree.job.plan, body.rotations)
        if cache.events is not None:
            cache.events.add(Merged(total, total - tree.next_position))
        for layer, entries in zip(cache.layers, _taken(piece.entries), strict=True):
            keys, values = (each[:, :stays].contiguous() for each in entries)
            extent = Extent.dense(keys, values, numbers.to(keys.device, copy=True))
            meter.change(_bytes(entries), extent.nbytes, extent.nbytes)
            layer.extents = (extent,)
            if cache.events is not None:
                cache.events.add(Kept(layer.index, total, (numbers,) * extent.heads))
                cache.events.add(Replaced(layer.index, total, extent))
            before = layer.nbytes
            del keys, values, entries, extent
            seal_layer(layer, packing, total, cache.events)
            meter.change(before, layer.nbytes, layer.nbytes if packing is not None else 0)
    cache.feed(tree.job.ids)
    cache.next_position = tree.next_position
    return cache, Report(time.perf_counter() - began, meter.peak, tree.stated(body.layout))


def _taken(entries: list[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """One layer's entries after the other, none of them held on to."""
    while entries:
        yield entries.pop(0)


def _bytes(entries: Sequence[Tensor]) -> int:
    return sum(each.untyped_storage().nbytes() for each in entries)


__all__ = ["Hierarchy", "read_merged"]
