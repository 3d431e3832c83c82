"""One forward pass over a packed batch: what happens to each layer's new keys and values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from farspan.attention import Led, Pattern, Rows, Standing, attend, standing
from farspan.attention.fetched import Chooser
from farspan.attention.pairs import Pairs, attend_pairs
from farspan.cache import SEAL_EVERY, LayerCache, SequenceCache
from farspan.cache.pieces import Pieces
from farspan.runtime.answering import Answering
from farspan.runtime.fetching import Fetching
from farspan.runtime.packing import Packing, sealing
from farspan.runtime.prefilling import Prefilling
from farspan.runtime.pruning import Pruning, silence
from farspan.runtime.retention import Moment, Retention
from farspan.signals import Rotations


@dataclass
class Meter:
    """Bytes of KV allocated, now and at most; kept up to date layer by layer."""

    now: int = 0
    peak: int = 0

    def change(self, before: int, after: int, transit: int = 0) -> None:
        """A layer went from `before` to `after` bytes, with `transit` more in between."""
        self.peak = max(self.peak, self.now + max(after - before, 0) + transit)
        self.now += after - before


@dataclass
class Row:
    """One sequence in the batch: `length` new tokens, of which the last `probe` are only lent and leave no trace."""

    cache: SequenceCache
    length: int
    probe: int = 0
    capacity: int = 0
    """Tokens the tail will have to hold, where known."""
    packer: Packing | None = None
    retention: Retention | None = None
    pruning: Pruning | None = None
    """While reading under a plan that prunes heads: what chooses them."""
    prefilling: Prefilling | None = None
    """While reading under a pattern: what gives it."""
    answering: Answering | None = None
    """While answering under a budget of its own: what holds it."""
    fetching: Fetching | None = None
    """What chooses the entries that are read, where not all are."""
    reading: bool = False
    """True while a context is read; else tokens are held as they come and seal in runs of 128."""
    decide: bool = True
    """False before the last chunk of a layer in layerwise order."""
    offset: int = 0
    """Tokens already fed to this layer but not yet to the sequence (layerwise order)."""
    token_ids: Tensor | None = None
    began: int = 0
    """Number of the first token of this turn."""
    stands: Tensor | None = None
    """[length] where each new token stands, where they do not stand one after another."""
    rotations: Rotations | None = None
    nontext: Tensor | None = None
    """[seen in the end] bool: which tokens were marked as something other than text."""
    kinds: Tensor | None = None
    """[seen in the end] uint8: which tokens are special or punctuation, where the scorer asks."""
    carried: dict[str, Tensor] = field(default_factory=dict)
    """What layers leave for later ones, in this pass."""
    led: dict[int, Led] = field(default_factory=dict)
    """By layer, how it asked: for layers that go by its keys."""

    @property
    def start(self) -> int:
        """Number of the first new token among all that the sequence has seen."""
        return self.cache.seen + self.offset

    @property
    def position(self) -> int:
        """Where the first new token stands; behind its number where contexts share positions (see `cache.pieces`)."""
        return self.cache.next_position + self.offset

    @property
    def positions(self) -> Tensor:
        """[length] int64: where its new tokens stand."""
        return torch.arange(self.position, self.position + self.length) if self.stands is None else self.stands

    def chooses(self, layer: LayerCache) -> Chooser | None:
        """What chooses the entries of a layer that its new tokens read; None where they read all."""
        if self.fetching is None:
            return None
        return self.fetching.at(self.cache, layer, self.start, self.probe, self.reading)

    def weighs(self, layer: LayerCache) -> Pieces | None:
        """How a layer's new tokens attend to pieces that were read apart; None where they do as to anything else."""
        pieces = self.cache.pieces
        return None if pieces is None or pieces.plain or layer.window is not None else pieces


@dataclass
class Step:
    """A packed batch [1, ΣT] on its way through the layers."""

    rows: list[Row]
    meter: Meter | None = None
    """Where bytes are counted while reading; answers count none, because counting would cost more than a step."""
    observer: Callable[[int, Tensor, Tensor], None] | None = None
    """Called with (layer, query [Hq, ΣT, D], out [ΣT, Hq, Dv]) after attention; for diagnostics."""
    _standing: dict[int, Standing] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Note what holds for every pass."""
        self._steady = all(row.prefilling is None and row.fetching is None for row in self.rows)
        layers = (layer for row in self.rows for layer in row.cache.layers)
        self._prunes = any(row.pruning is not None for row in self.rows)
        self._leaders = {layer.leader.index for layer in layers if layer.leader is not None}

    def repeats(self, wanted: Sequence[tuple[SequenceCache, int]]) -> bool:
        """Whether a pass is this step once more: of the same sequences, with as many new tokens of each."""
        return [(row.cache, row.length) for row in self.rows] == wanted

    @property
    def positions(self) -> Tensor:
        """[ΣT] int64."""
        if len(self.rows) == 1:
            return self.rows[0].positions
        return torch.cat([row.positions for row in self.rows])

    @property
    def position(self) -> int | None:
        """Where its only new token stands; None where there are several."""
        row = self.rows[0]
        return row.position if len(self.rows) == row.length == 1 and row.stands is None else None

    def layer(
        self, index: int, query: Tensor, keys: Tensor, values: Tensor, scaling: float, pairs: Pairs | None = None
    ) -> Tensor:
        """query [Hq, ΣT, D], keys [Hk, ΣT, D], values [Hk, ΣT, Dv], all rotated -> attention output [ΣT, Hq, Dv].

        Layers with a window of their own see nothing far, so `pairs` are not for them.
        """
        layers = [row.cache.layers[index] for row in self.rows]
        if self._prunes:
            self._choose_heads(layers)
        sizes = self._append(layers, keys, values)
        if index in self._leaders:
            self._lend(layers, query, scaling)
        out = self._attended(index, layers, query, scaling, pairs)
        if any(layer.pruned for layer in layers):
            silence(layers, [row.length for row in self.rows], out)
        if self._prunes:
            self._weigh_heads(layers, out)
        for row, layer, before, its in zip(self.rows, layers, sizes, self._cut(query), strict=True):
            transit = self._settle(row, layer, its, scaling)
            if self.meter:
                self.meter.change(before, layer.nbytes, transit)
        if self.observer is not None:
            self.observer(index, query, out)
        return out

    def _cut(self, states: Tensor) -> list[Tensor]:
        """states [H, ΣT, D] -> each row's [H, T, D]."""
        if len(self.rows) == 1:
            return [states]
        return list(states.split([row.length for row in self.rows], dim=1))

    def _lend(self, layers: list[LayerCache], query: Tensor, scaling: float) -> None:
        """Note the queries of a layer for those that follow it; while nothing has sealed, none has lost its keys."""
        for row, layer, its in zip(self.rows, layers, self._cut(query), strict=True):
            if layer.extents:
                row.led[layer.index] = Led(its, scaling)

    def _choose_heads(self, layers: list[LayerCache]) -> None:
        for row, layer in zip(self.rows, layers, strict=True):
            if row.pruning is not None:
                row.pruning.choose(row.cache, layer)

    def _weigh_heads(self, layers: list[LayerCache], out: Tensor) -> None:
        start = 0
        for row, layer in zip(self.rows, layers, strict=True):
            if row.pruning is not None:
                row.pruning.note(row.cache, layer, out[start : start + row.length - row.probe])
            start += row.length

    def _append(self, layers: list[LayerCache], keys: Tensor, values: Tensor) -> list[int]:
        """Each row's new entries go to its tail -> bytes of each layer then, where bytes are counted."""
        sizes = []
        for row, layer, its_keys, its_values in zip(self.rows, layers, self._cut(keys), self._cut(values), strict=True):
            before = layer.nbytes if self.meter else 0
            fresh = layer.window is None and len(layer.extents) == layer.sealed
            capacity = row.capacity if fresh else 0
            layer.tail.append(its_keys, its_values, row.start, capacity, exact=row.reading)
            sizes.append(layer.nbytes if self.meter else 0)
            if self.meter:
                self.meter.change(before, sizes[-1])
        return sizes

    def _attended(
        self, index: int, layers: list[LayerCache], query: Tensor, scaling: float, pairs: Pairs | None
    ) -> Tensor:
        """Attention of a layer, whose tails have the new tokens: as at the token before, where that can be."""
        stood = self._standing.get(index)
        if stood is not None and stood.holds():
            return stood.attend(query, scaling)
        rows = self._packed(layers, query, scaling)
        if pairs is not None and layers[0].window is None:
            return attend_pairs(query, rows, scaling, pairs)
        if self._steady:
            stood = standing(query, rows)
            if stood is not None:
                self._standing[index] = stood
                return stood.attend(query, scaling)
        return attend(query, rows, scaling)

    def _packed(self, layers: list[LayerCache], query: Tensor, scaling: float) -> list[Rows]:
        """What attention needs to know of each row."""
        rows, start = list[Rows](), 0
        for row, layer, its in zip(self.rows, layers, self._cut(query), strict=True):
            pattern = self._pattern(row, layer, its, scaling)
            led = None if layer.leader is None else row.led.get(layer.leader.index)
            rows.append(Rows(layer, start, row.length, pattern, row.chooses(layer), row.weighs(layer), led))
            start += row.length
        return rows

    @staticmethod
    def _pattern(row: Row, layer: LayerCache, query: Tensor, scaling: float) -> Pattern | None:
        if row.prefilling is None:
            return None
        return row.prefilling.pattern(layer, query, row.start, row.probe, scaling, row.cache.events)

    def _settle(self, row: Row, layer: LayerCache, query: Tensor, scaling: float) -> int:
        """After attention: drop the probe, decide, trim, seal. Returns bytes that were in transit."""
        layer.tail.drop_last(row.probe)
        seen = row.start + row.length - row.probe
        if layer.window is not None:
            layer.trim_window(0 if row.reading else SEAL_EVERY)
            return 0
        if row.fetching is not None:
            row.fetching.note(layer, query[:, : row.length - row.probe], row.start, scaling)
        if row.packer is not None and row.decide:
            row.packer.note(layer.index, query, row.start, scaling)
        if row.answering is not None:
            return row.answering.settle(row.cache, layer, query, seen, scaling)
        if not row.reading:
            whole = max(0, len(layer.tail) - _kept_back(row)) // SEAL_EVERY * SEAL_EVERY
            return self._seal(row, layer, whole, seen)
        reads = row.fetching is not None and row.fetching.method.read
        if row.retention is not None:
            transit = self._decide(row, layer, query, seen, scaling)
            return max(transit, _closed(layer)) if reads else transit
        whole = max(0, len(layer.tail) - _kept_back(row))
        if row.packer is not None and row.decide and len(layer.extents) == layer.sealed:
            return self._seal(row, layer, whole, seen)
        return _closed(layer) if reads else 0

    def _decide(self, row: Row, layer: LayerCache, query: Tensor, seen: int, scaling: float) -> int:
        assert row.retention is not None
        watched = row.decide or bool(row.retention.scorer.accumulates)
        if row.retention.scorer.predicted or not watched:  # the reader decides when predictions are known
            return 0
        return row.retention.decide(layer, self._moment(row, query, seen, scaling), row.cache.events)

    def _moment(self, row: Row, query: Tensor, seen: int, scaling: float) -> Moment:
        assert row.retention is not None and row.token_ids is not None
        scorer = row.retention.scorer
        positions = torch.arange(row.start, row.start + row.length, dtype=torch.int32, device=query.device)
        fed, probe = slice(0, row.length - row.probe), None
        if not scorer.accumulates:
            fed = slice(row.length - min(scorer.observes(), row.probe or row.length), row.length)
        elif row.probe:
            probe = query[:, fed.stop :], positions[fed.stop :]
        return Moment(
            seen=seen,
            queries=query[:, fed],
            query_positions=positions[fed],
            probed=bool(row.probe) and probe is None,
            scaling=scaling,
            token_ids=row.token_ids[:seen],
            probe=probe,
            due=row.decide,
            began=row.began,
            rotations=row.rotations,
            nontext=None if row.nontext is None else row.nontext[seen - row.length + row.probe : seen],
            kinds=None if row.kinds is None else row.kinds[:seen],
            carried=row.carried,
        )

    @staticmethod
    def _seal(row: Row, layer: LayerCache, count: int, seen: int) -> int:
        if not count:
            return 0
        extent = layer.seal_tail(row.packer and row.packer.at(layer), count=count)
        if extent is None:
            return 0
        if row.cache.events is not None and row.packer is not None:
            row.cache.events.add(sealing(layer, seen, extent))
        return layer.extents[-1].nbytes  # the new extent, or the larger one that it was joined into

    def feed(self, ids: list[Tensor]) -> None:
        """The pass is over: note each sequence's new tokens (without its probe) as seen."""
        for row, new in zip(self.rows, ids, strict=True):
            row.cache.feed(new)


def _closed(layer: LayerCache) -> int:
    """Make an open extent of the tail, for the next chunk to fetch from; returns bytes in transit."""
    if not len(layer.tail):
        return 0
    layer.close_tail()
    return layer.extents[-1].nbytes


def _kept_back(row: Row) -> int:
    return 0 if row.packer is None else row.packer.keeps_back()
