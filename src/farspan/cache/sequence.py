"""The cache of one sequence: per layer sealed extents and one open tail; forks share what is sealed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from farspan.cache.extent import Extent, joined
from farspan.cache.pieces import Composed, Pieces
from farspan.cache.tail import Tail

if TYPE_CHECKING:
    from farspan.attention.pattern import Pattern

SEAL_EVERY = 128  # decode tails seal in runs of this many tokens
FEW = 4096  # tensors of token ids below this are joined, larger ones (chunks of a read) stay views


class Packer(Protocol):
    """What sealing needs of a store: entries of a dense extent -> the same entries at the store's precision."""

    def seal(self, extent: Extent) -> Extent:
        """-> an extent with the same positions and offsets."""
        ...


class Kept(NamedTuple):
    """From `time` (tokens seen) on, head h of `layer` holds of its older entries just `positions[h]`."""

    layer: int
    time: int
    positions: tuple[Tensor, ...]


class Replaced(NamedTuple):
    """From `time` on, the entries of `extent` have its (dequantised, merged) keys and values."""

    layer: int
    time: int
    extent: Extent


class Followed(NamedTuple):
    """From `time` on, `layer` scores its entries at `positions[h]` by the keys and queries of the layer `leader`."""

    layer: int
    time: int
    leader: int
    positions: tuple[Tensor, ...]


class Pruned(NamedTuple):
    """From `time` on, the key-value `heads` of `layer` put out nothing."""

    layer: int
    time: int
    heads: tuple[int, ...]


class Patterned(NamedTuple):
    """Queries at positions time..stop-1 saw, in `layer`, what the pattern shows of the keys at their own and before."""

    layer: int
    time: int
    stop: int
    pattern: Pattern


class Fetched(NamedTuple):
    """Queries at `time`..`time + tokens` see in `layer`, of the keys before `since`, just `positions[h]` in head h,
    their scores raised by `log_weights[h]` where there are any.
    """

    layer: int
    time: int
    tokens: int
    since: int
    positions: tuple[Tensor, ...]
    log_weights: tuple[Tensor, ...] | None = None


class Merged(NamedTuple):
    """All tokens before `time` were read in pieces that merged while they passed the layers, which no mask can replay:
    `Kept` and `Replaced` at that time say what is held of them. Later tokens stand `lag` positions before their number.
    """

    time: int
    lag: int


Event = Kept | Replaced | Followed | Pruned | Patterned | Fetched | Composed | Merged


@dataclass
class Events:
    """What was decided about a sequence, with its time: what the replay oracle replays. Off unless asked for."""

    log: list[Event] = field(default_factory=list)

    def add(self, event: Event) -> None:
        """Append one decision."""
        self.log.append(event)

    def fork(self) -> Events:
        """A copy that goes its own way."""
        return Events(list(self.log))


class LayerCache:
    """One layer of one sequence: `extents`, of which those from `sealed` on may still be decided about by the
    read going on, and the open `tail`. `window` is the layer's own sliding window in tokens, or None. `leader` is the
    layer of the same sequence whose keys its extents have, extent for extent, where they hold none. Heads that are
    `pruned` hold nothing, once their tail seals, and put out nothing.
    """

    __slots__ = ("extents", "index", "leader", "own", "pruned", "sealed", "state", "tail", "window")

    def __init__(self, index: int, window: int | None = None) -> None:
        self.index, self.window = index, window
        self.extents: tuple[Extent, ...] = ()
        self.sealed = 0
        self.own = (
            0  # extents before this index are shared: with a fork, with what this was forked from, or with a file
        )
        self.tail = Tail()
        self.state: dict[str, Tensor] = {}
        self.leader: LayerCache | None = None
        self.pruned: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of storage held by this layer (shared extents counted)."""
        state = sum(t.untyped_storage().nbytes() for t in self.state.values())
        return sum(e.nbytes for e in self.extents) + self.tail.nbytes + state

    def held(self, heads: int) -> list[int]:
        """Entries held per head."""
        counts = [len(self.tail)] * heads
        for extent in self.extents:
            counts = [a + b for a, b in zip(counts, extent.counts, strict=True)]
        return counts

    def positions(self, head: int) -> Tensor:
        """[N_h] int32: which tokens one head holds, oldest first."""
        parts = [e.head_positions(head) for e in self.extents]
        if len(self.tail):
            parts.append(self.tail.positions())
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int32)

    def fork(self) -> LayerCache:
        """Copy-on-write: extents are shared, the tail and the per-entry state are copied."""
        other = LayerCache(self.index, self.window)
        other.extents, other.sealed, other.own = self.extents, self.sealed, len(self.extents)
        self.own = len(self.extents)  # shared from now on, by both
        other.tail, other.pruned = self.tail.clone(), self.pruned
        other.state = {name: value.clone() for name, value in self.state.items()}
        return other

    def trim_window(self, slack: int = 0) -> None:
        """Sliding layers: forget what no later query can see, allowing `slack` tokens more between copies."""
        assert self.window is not None
        surplus = len(self.tail) - (self.window - 1)
        if surplus > slack:
            self.tail.drop_first(surplus)

    def close_tail(self) -> None:
        """Turn the tail into an extent that may still be decided about, so that it can be fetched from meanwhile."""
        opened, own = self.sealed, self.own
        self.own = max(own, opened)  # what is sealed is not joined with what is open
        self.seal_tail(None)
        self.sealed, self.own = opened, own

    def seal_tail(self, packer: Packer | None, *, count: int | None = None) -> Extent | None:
        """Turn the oldest `count` tokens of the tail (default all) into a sealed extent; returns it."""
        count = len(self.tail) if count is None else count
        if not count:
            return None
        whole = count == len(self.tail)
        keys, values = self.tail.keys[:, :count], self.tail.values[:, :count]
        positions = self.tail.positions()[:count].clone()
        if self.pruned:
            left = Extent.dense(keys, values, positions).without(self.pruned)
            extent = left if packer is None else packer.seal(left)
        elif packer is None:
            # an exactly filled buffer becomes the extent; any other is copied so that no slack is kept
            exact = whole and keys.is_contiguous() and keys.untyped_storage().nbytes() == keys.nbytes
            extent = Extent.dense(keys if exact else keys.clone(), values if exact else values.clone(), positions)
        else:
            extent = packer.seal(Extent.dense(keys, values, positions))
        if whole:
            self.tail.clear()
        else:
            self.tail.drop_first(count)
        self.extents = (*self.extents, extent)
        self.sealed = len(self.extents)
        self._merge()
        self.follow()
        return extent

    def follow(self) -> None:
        """Give extents without keys those of the leader, which has sealed and joined the same entries before."""
        if self.leader is not None:
            pairs = zip(self.extents, self.leader.extents, strict=True)
            self.extents = tuple(extent.following(its) for extent, its in pairs)

    def _merge(self) -> None:
        """Join neighbours of like size, so that a sequence of n seals leaves O(log n) extents; never shared ones."""
        while len(self.extents) - self.own >= 2:
            a, b = self.extents[-2:]
            if a.offsets[-1] >= 2 * b.offsets[-1]:
                return
            both = joined((a, b))
            if both is None:
                return
            self.extents = (*self.extents[:-2], both)
            self.sealed = len(self.extents)


class SequenceCache:
    """All layers of one sequence, with the three numbers that must never be confused: `seen` tokens, entries held
    (per layer and head), and `next_position`. `pieces` says what of it was read apart.
    """

    __slots__ = ("_fed", "events", "layers", "next_position", "pieces", "seen")

    def __init__(self, layers: list[LayerCache], *, events: Events | None = None) -> None:
        self.layers = layers
        self._fed: list[Tensor] = []  # int32; in order
        self.pieces: Pieces | None = None
        self.seen = 0
        self.next_position = 0
        self.events = events

    @classmethod
    def empty(cls, windows: tuple[int | None, ...], *, trace: bool = False) -> SequenceCache:
        """A cache that has seen nothing; `windows[l]` is layer l's own sliding window."""
        layers = [LayerCache(i, w) for i, w in enumerate(windows)]
        return cls(layers, events=Events() if trace else None)

    def feed(self, ids: Tensor) -> None:
        """Note tokens [T] as seen; their entries are the layers' business."""
        self._fed.append(ids.to(device="cpu", dtype=torch.int32))
        while len(self._fed) > 1 and self._fed[-2].numel() < min(2 * self._fed[-1].numel(), FEW):
            self._fed[-2:] = [torch.cat(self._fed[-2:])]  # answers come token by token: no tensor for each
        self.seen += ids.numel()
        self.next_position += ids.numel()

    def ids(self) -> Tensor:
        """[seen] int32: every token fed, in order."""
        if not self._fed:
            return torch.empty(0, dtype=torch.int32)
        if len(self._fed) > 1:
            self._fed = [torch.cat(self._fed)]
        return self._fed[0]

    def lead(self, leaders: Mapping[int, int]) -> None:
        """From now on the layers that `leaders` names hold no keys of what they seal, but go by those of its values."""
        for layer, leader in leaders.items():
            self.layers[layer].leader = self.layers[leader]
            self.layers[layer].follow()

    @property
    def nbytes(self) -> int:
        """Bytes of KV storage, indices and scales included."""
        return sum(layer.nbytes for layer in self.layers)

    @property
    def elsewhere_bytes(self) -> int:
        """Bytes of blocks on disk or in host memory, brought when they are attended to."""
        return sum(extent.elsewhere_bytes for layer in self.layers for extent in layer.extents)

    def fork(self) -> SequenceCache:
        """An independent continuation that shares every sealed extent."""
        other = SequenceCache(
            [layer.fork() for layer in self.layers], events=self.events.fork() if self.events else None
        )
        other.lead({layer.index: layer.leader.index for layer in self.layers if layer.leader is not None})
        other._fed, other.seen, other.next_position = [self.ids()], self.seen, self.next_position
        other.pieces = self.pieces
        return other
