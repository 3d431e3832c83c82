"""Sequences that were read apart, put side by side: their entries turned to where they shall stand, and renumbered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from farspan.cache import DenseBlock, Events, Extent, LayerCache, SequenceCache
from farspan.cache.pieces import Composed, Part, Pieces
from farspan.cache.sequence import Replaced
from farspan.errors import PlanDoesNotApply
from farspan.runtime.entries import whole_state
from farspan.runtime.packing import Packing
from farspan.signals import Rotations

AT_ONCE = 65536  # entries turned at a time: in between they are in float32


@dataclass(frozen=True)
class Piece:
    """One sequence, which this may change (a fork): its tokens before `start` are left out, those from it on become
    token `at` and later of the whole, their keys turned by `move` positions.
    """

    cache: SequenceCache
    start: int
    at: int
    move: int

    @property
    def lag(self) -> int:
        """How far behind their number its own newest tokens stand."""
        return self.cache.seen - self.cache.next_position

    def slide(self, lag: int) -> int:
        """By how much keys are turned in layers with a sliding window, where tokens stand one after another up to the
        next position, whatever the pieces do elsewhere.
        """
        return self.at - self.start + self.lag - lag


@dataclass
class Composing:
    """How entries are turned and packed, and how many had to be packed anew."""

    rotations: Rotations | None
    packing: Packing | None
    events: Events | None = None
    repacked: int = 0
    replaced: list[tuple[int, Extent]] = field(default_factory=list)


def compose(pieces: Sequence[Piece], next_position: int, ranges: Pieces, how: Composing) -> SequenceCache:
    """One sequence of all pieces, the next token of which stands at `next_position`.

    In layers with full attention every piece's entries stand where the piece says. Layers with a sliding window hold
    what they would after reading the pieces in this order: the last W - 1 tokens, of as many pieces as that takes.
    Extents that neither move nor lose an entry are shared. Per-entry state is joined; a name that one piece lacks is
    zero there. Raises PlanDoesNotApply for packed entries that have to move and whose store packs by queries.
    """
    seen = pieces[-1].at + pieces[-1].cache.seen - pieces[-1].start
    lag = seen - next_position
    whole = SequenceCache([LayerCache(layer.index, layer.window) for layer in pieces[0].cache.layers])
    if all(piece.cache.events is not None for piece in pieces):
        whole.events = _events(pieces, seen, lag, ranges)
    ids = torch.cat([piece.cache.ids()[piece.start :] for piece in pieces])
    with torch.inference_mode():
        for layer in whole.layers:
            parts = [(piece, piece.cache.layers[layer.index]) for piece in pieces]
            if layer.window is None:
                _full(layer, parts, how)
            else:
                _sliding(layer, layer.window, parts, lag, how)
    whole.feed(ids)
    whole.next_position, whole.pieces = next_position, ranges
    if whole.events is not None:
        for index, extent in how.replaced:
            whole.events.add(Replaced(index, seen, extent))
    return whole


def _events(pieces: Sequence[Piece], seen: int, lag: int, ranges: Pieces) -> Events:
    parts = []
    for piece in pieces:
        assert piece.cache.events is not None
        log, ids = tuple(piece.cache.events.log), piece.cache.ids()
        parts.append(Part(ids, log, piece.lag, piece.start, piece.at, piece.move))
    return Events([Composed(seen, lag, tuple(parts), ranges)])


def _full(whole: LayerCache, parts: list[tuple[Piece, LayerCache]], how: Composing) -> None:
    extents: list[Extent] = []
    names = {name: None for _, layer in parts for name in layer.state}
    states: dict[str, list[list[Tensor]]] = {name: [] for name in names}
    for piece, layer in parts:
        layer.seal_tail(None)
        heads = layer.extents[-1].heads
        if names:
            stays = [layer.positions(head) >= piece.start for head in range(heads)]
            for name in names:
                state = whole_state(layer, name, heads)
                states[name].append([s[mask] for s, mask in zip(state, stays, strict=True)])
        moved = (_moved(extent, piece, layer, how) for extent in layer.extents)
        extents += [extent for extent in moved if extent is not None]
    whole.extents = tuple(extents)
    whole.sealed = whole.own = len(extents)  # shared with what was composed, or as good as
    for name, each in states.items():
        whole.state[name] = torch.cat([part for head in zip(*each, strict=True) for part in head])


def _moved(extent: Extent, piece: Piece, layer: LayerCache, how: Composing) -> Extent | None:
    """The extent's entries of tokens that are taken, turned and renumbered; None where there are none."""
    by = piece.at - piece.start
    if extent.last < max(extent.first, piece.start):
        return None
    whole = extent.first >= piece.start
    if whole and not piece.move and (not by or not _knows_positions(extent)):
        return extent.renumbered(by)
    keys, values, positions = extent.entries()
    offsets, numbers = extent.offsets, extent.positions
    if not whole:
        stays = positions >= piece.start
        if not bool(stays.any()):
            return None
        counts = [int(stays[a:b].sum()) for a, b in pairwise(offsets)]
        keys, values, numbers = keys[stays], values[stays], numbers[numbers >= piece.start]
        offsets = tuple(accumulate(counts, initial=0))
    if piece.move:
        keys = _turned(keys, piece.move, layer.index, how)
    moved = Extent(DenseBlock(keys, values), numbers + by, offsets, shared=extent.shared)
    return _put_back(moved, extent, layer, how)


def _knows_positions(extent: Extent) -> bool:
    """Whether the block itself reckons with positions, so that its tokens cannot just be given other numbers."""
    return not isinstance(extent.block, DenseBlock) and hasattr(extent.block, "placed")


def _turned(keys: Tensor, move: int, layer: int, how: Composing) -> Tensor:
    """keys [E, D] as they would be `move` positions further on."""
    assert how.rotations is not None, "checked before: only keys that rotate are moved"
    moves = torch.tensor([move])
    parts = [how.rotations.rotate(part[None], moves, layer)[0] for part in keys.split(AT_ONCE)]
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _put_back(moved: Extent, was: Extent, layer: LayerCache, how: Composing) -> Extent:
    """Packed where the entries were packed, and put where they lay."""
    block, packing = was.block, how.packing
    if isinstance(block, DenseBlock):
        shelf = None if was.kept or packing is None else packing.shelf
        return moved if shelf is None else shelf.put(moved, layer.index)
    assert packing is not None and packing.store is not None, "only a store packs"
    if packing.store.asks(1):
        raise PlanDoesNotApply(
            f"{packing.store.name} packs by queries, and none are at hand to pack anew the entries that have to move; "
            "compose contexts of another store, or read the documents together"
        )
    how.repacked += moved.offsets[-1]
    packed = packing.at(layer).seal(moved)
    how.replaced.append((layer.index, packed))
    return packed


def _sliding(whole: LayerCache, window: int, parts: list[tuple[Piece, LayerCache]], lag: int, how: Composing) -> None:
    """The last window - 1 tokens; every piece holds as many of its own, so that none is missing."""
    missing, taken = window - 1, []
    for piece, layer in reversed(parts):
        tail = layer.tail
        first = max(tail.first, piece.start, tail.last + 1 - missing)
        if not missing or first > tail.last:
            continue
        keys, values = tail.keys[:, first - tail.first :], tail.values[:, first - tail.first :]
        by = piece.slide(lag)
        if by:
            turned = _turned(keys.flatten(0, 1), by, layer.index, how)
            keys = turned.view(keys.shape)
        taken.insert(0, (keys, values, first + piece.at - piece.start))
        missing -= keys.shape[1]
    for keys, values, number in taken:
        whole.tail.append(keys, values, number, capacity=sum(k.shape[1] for k, _, _ in taken), exact=True)
