"""An extent: an immutable run of held entries of one layer, ragged over heads, shared between forks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from farspan.cache.block import Block, DenseBlock, interleaved
from farspan.cache.index import Index, Unread
from farspan.cache.keyless import KeylessBlock
from farspan.cache.paging import Paged

Load = Callable[[], tuple[Block, Tensor]]
"""Brings a block and its positions, and checks them."""

UNPACK_ENTRIES = 4096  # entries per head that a packed extent lends in floating point at a time


class Piece(NamedTuple):
    """Entries lent to a kernel: heads h0..h1 hold keys [h, n, D], values [h, n, Dv] at positions [h or 1, n].

    Where they are `led`, the keys are another layer's, and that layer's queries ask for them.
    """

    heads: slice
    keys: Tensor
    values: Tensor
    positions: Tensor
    led: bool = False


class Extent:
    """A block with the positions its entries came from and `offsets[Hk + 1]` saying which belong to which head.

    `positions` is int32, [N] where all heads hold the same tokens and [E] head after head otherwise. An extent
    read from a file starts without its block; `load` brings it (and checks it) at first touch, or at every touch where
    it is not to `keep` it: then only positions and the index stay in memory, and `nbytes` counts what does. A block
    without keys has those of the extent that this one `follows`.
    """

    __slots__ = (
        *("_block", "_index", "_keep", "_load", "_nbytes", "_paged", "_positions"),
        *("first", "follows", "last", "offsets", "prepared", "shared"),
    )

    def __init__(
        self,
        block: Block | None,
        positions: Tensor | None,
        offsets: tuple[int, ...],
        *,
        shared: bool,
        bounds: tuple[int, int] | None = None,
        load: Load | None = None,
        nbytes: int = 0,
        keep: bool = True,
        paged: Paged | None = None,
        follows: Extent | None = None,
    ) -> None:
        self._block, self._positions, self._load, self._nbytes = block, positions, load, nbytes
        self._paged, self.follows = paged, follows
        self.offsets, self.shared, self._keep = offsets, shared, keep
        self.prepared: Any = None
        self._index: Index | Unread | None = None
        if bounds is None:
            assert positions is not None
            bounds = (int(positions.min()), int(positions.max())) if positions.numel() else (0, -1)
        self.first, self.last = bounds

    @classmethod
    def dense(cls, keys: Tensor, values: Tensor, positions: Tensor) -> Extent:
        """From keys [H, N, D], values [H, N, Dv] and positions [N] (shared) or [H, N]."""
        heads, entries = keys.shape[:2]
        block = DenseBlock(*(t.reshape(heads * entries, t.shape[-1]) for t in (keys, values)))
        offsets = tuple(h * entries for h in range(heads + 1))
        return cls(block, positions.reshape(-1), offsets, shared=positions.ndim == 1)

    @property
    def block(self) -> Block:
        """The payload, loaded and verified now if it still lies in a file; with the keys of what it follows."""
        block = self._own_block()
        if self.follows is None:
            return block
        assert isinstance(block, KeylessBlock), "only values without keys follow"
        return block.keyed(self.follows.block)

    def _own_block(self) -> Block:
        if self._block is not None:
            return self._block
        load = self._load
        if load is not None:
            block, positions = load()
            if self._positions is None:
                self._positions = positions
            if not self._keep:
                return block
            self._block, self._load = block, None
        assert self._block is not None, "an extent has a block or a way to load it"
        return self._block

    @property
    def positions(self) -> Tensor:
        """int32, [N] if `shared`, else [E]."""
        if self._positions is None:
            _ = self.block
        assert self._positions is not None
        return self._positions

    @property
    def index(self) -> Index | None:
        """What a fetch method made of these entries, which never change; loaded now if it still lies in a file."""
        if isinstance(self._index, Unread):
            self._index = self._index.load()
        return self._index

    @index.setter
    def index(self, index: Index | Unread | None) -> None:
        self._index = index

    @property
    def loaded(self) -> bool:
        """False while the payload still lies in a file."""
        return self._block is not None

    def holding(self, block: Block) -> Extent:
        """The same entries in another block."""
        return Extent(block, self.positions, self.offsets, shared=self.shared, bounds=(self.first, self.last))

    def without(self, heads: Sequence[int]) -> Extent:
        """A copy in the dtype of the entries, in which these heads hold nothing."""
        keys, values, positions = self.entries()
        left = [h for h in range(self.heads) if h not in heads]
        runs = [slice(self.offsets[h], self.offsets[h + 1]) for h in left]
        keys, values, positions = (torch.cat([column[run] for run in runs]) for column in (keys, values, positions))
        counts = (n if h in left else 0 for h, n in enumerate(self.counts))
        return Extent(DenseBlock(keys, values), positions, tuple(accumulate(counts, initial=0)), shared=False)

    def renumbered(self, by: int) -> Extent:
        """The same entries, whose tokens have numbers higher by `by`; what still lies in a file stays there."""
        if not by:
            return self

        def load() -> tuple[Block, Tensor]:
            return self.block, self.positions + by

        loaded = self._block is not None
        positions = None if self._positions is None else self._positions + by
        return Extent(
            self._block,
            self.positions + by if loaded else positions,
            self.offsets,
            shared=self.shared,
            bounds=(self.first + by, self.last + by) if self.last >= self.first else (0, -1),
            load=None if loaded else load,
            nbytes=self._nbytes,
            keep=self._keep,
            paged=self._paged,
        )

    def unindexed(self) -> Extent:
        """The same entries in the same storage, without an index."""
        return self._alike(None if self.loaded else lambda: (self._own_block(), self.positions), self.follows)

    def following(self, other: Extent) -> Extent:
        """The same entries in the same storage, with the keys of `other`, which holds them in another layer."""
        if self.follows is other:
            return self
        assert self.offsets == other.offsets, "a layer and the one it follows hold the same entries"
        return self._alike(self._load, other)

    def _alike(self, load: Load | None, follows: Extent | None) -> Extent:
        return Extent(
            self._block,
            self._positions,
            self.offsets,
            shared=self.shared,
            bounds=(self.first, self.last),
            load=load,
            nbytes=self._nbytes,
            keep=self._keep,
            paged=self._paged,
            follows=follows,
        )

    @property
    def heads(self) -> int:
        """Key-value heads Hk."""
        return len(self.offsets) - 1

    @property
    def counts(self) -> tuple[int, ...]:
        """Entries held per head."""
        return tuple(b - a for a, b in pairwise(self.offsets))

    @property
    def uniform(self) -> bool:
        """True where every head holds the same number of entries."""
        return len(set(self.counts)) == 1

    @property
    def nbytes(self) -> int:
        """Bytes of storage: block, positions and index (for one still in its file, what it will take)."""
        index = 0 if self._index is None else self._index.nbytes
        if not self._keep:
            return index + (0 if self._positions is None else self._positions.untyped_storage().nbytes())
        if self._block is None or self._positions is None:
            return index + self._nbytes
        return index + self._block.nbytes + self._positions.untyped_storage().nbytes()

    @property
    def kept(self) -> bool:
        """False where the block is brought whenever it is looked at."""
        return self._keep

    @property
    def elsewhere_bytes(self) -> int:
        """Bytes of a block that is not kept in memory."""
        return 0 if self._keep else self._nbytes

    def elsewhere(self, bring: Callable[[], Block], nbytes: int, paged: Paged | None = None) -> Extent:
        """The same entries, whose block of `nbytes` bytes `bring` gives whenever it is looked at, and `paged` page by
        page.
        """
        positions, bounds = self.positions, (self.first, self.last)
        placement = getattr(self.block, "placement", None)

        def load() -> tuple[Block, Tensor]:
            block: Any = bring()
            return block if placement is None else block.placed(placement), positions

        how: dict[str, Any] = {"load": load, "nbytes": nbytes, "keep": False, "paged": paged}
        return Extent(None, positions, self.offsets, shared=self.shared, bounds=bounds, **how)

    def picked(self, slots: Sequence[Tensor]) -> tuple[Extent, tuple[Tensor, ...]]:
        """Ascending slots [n] of each head -> an extent of the pages that hold these entries, brought now, and where in
        it they are; the extent itself where its block is in memory, or only comes whole.
        """
        if self._block is not None or self._paged is None:
            return self, tuple(slots)
        pages, size = self._paged.pages, self._paged.pages.paging.size
        wanted = [torch.unique_consecutive(its.cpu() // size) for its in slots]
        at = [
            torch.searchsorted(mine, its.cpu() // size) * size + its.cpu() % size
            for mine, its in zip(wanted, slots, strict=True)
        ]
        offsets = tuple(accumulate(pages.taken(wanted), initial=0))
        rows = torch.cat([torch.arange(*run) for run in pages.rows("", wanted)] or [torch.arange(0)])
        held = self.positions.repeat(self.heads) if self.shared else self.positions
        positions, block = held[rows.to(held.device)], self._paged.bring(wanted)
        few = Extent(
            None, positions, offsets, shared=False, bounds=(self.first, self.last),
            load=lambda: (block, positions), keep=False,  # what looks at it holds on to it, as to any that was brought
        )  # fmt: skip
        return few, tuple(its.to(slot.device) for its, slot in zip(at, slots, strict=True))

    def head_positions(self, head: int) -> Tensor:
        """[N_h] int32 positions held by one head."""
        if self.shared:
            return self.positions
        return self.positions[self.offsets[head] : self.offsets[head + 1]]

    def pieces(self, limit: int = UNPACK_ENTRIES) -> Iterator[Piece]:
        """Everything held, in pieces a kernel can attend to; packed entries `limit` per head at a time."""
        block = self.block
        if isinstance(block, KeylessBlock):
            yield from self._led(block)
        elif self.uniform and isinstance(block, DenseBlock):
            yield self._stacked(block)
        elif self.uniform and hasattr(block, "unpack_heads"):
            yield from self._unpacked(block, limit)
        else:
            yield from self._head_by_head(block, limit)

    def _unpacked(self, block: Any, limit: int) -> Iterator[Piece]:
        heads, entries = self.heads, self.counts[0]
        positions = self.positions.view(1 if self.shared else heads, entries)
        for start in range(0, entries, limit):
            stop = min(start + limit, entries)
            keys, values = block.unpack_heads(start, stop)
            yield Piece(slice(0, heads), keys, values, positions[:, start:stop])

    def _head_by_head(self, block: Block, limit: int) -> Iterator[Piece]:
        for head, count in enumerate(self.counts):
            step = count if isinstance(block, DenseBlock) else limit
            base, positions = self.offsets[head], self.head_positions(head)
            for start in range(0, count, max(step, 1)):
                stop = min(start + step, count)
                keys, values = block.unpack(base + start, base + stop)
                yield Piece(slice(head, head + 1), keys[None], values[None], positions[None, start:stop])

    def _stacked(self, block: DenseBlock) -> Piece:
        heads, entries = self.heads, self.counts[0]
        positions = self.positions.view(1 if self.shared else heads, entries)
        keys, values = (t.view(heads, entries, t.shape[-1]) for t in (block.keys, block.values))
        return Piece(slice(0, heads), keys, values, positions)

    def _led(self, block: KeylessBlock) -> Iterator[Piece]:
        positions = self.positions.view(1 if self.shared else self.heads, -1)
        runs = (slice(0, block.own_count), slice(block.own_count, None))
        for (keys, values), run, led in zip(block.parts(), runs, (False, True), strict=True):
            if keys.shape[1]:
                yield Piece(slice(0, self.heads), keys, values, positions[:, run], led)

    def entries(self) -> tuple[Tensor, Tensor, Tensor]:
        """-> keys [E, D], values [E, Dv] unpacked whole, positions [E]."""
        keys, values = self.block.unpack(0, self.offsets[-1])
        positions = self.positions
        return keys, values, positions.repeat(self.heads) if self.shared else positions


def joined(extents: tuple[Extent, ...]) -> Extent | None:
    """Adjacent extents as one, where their blocks join without loss; None where they do not, or lie elsewhere."""
    if not all(extent.kept for extent in extents):
        return None
    first, *rest = extents
    block, counts = first.block, first.counts
    for other in rest:
        block = _join_blocks(block, counts, other.block, other.counts)
        if block is None:
            return None
        counts = tuple(a + b for a, b in zip(counts, other.counts, strict=True))
    shared = all(e.shared for e in extents)
    if shared:
        positions = torch.cat([e.positions for e in extents])
    else:
        positions = torch.cat([e.head_positions(h) for h in range(first.heads) for e in extents])
    offsets = [0]
    for count in counts:
        offsets.append(offsets[-1] + count)
    return Extent(block, positions, tuple(offsets), shared=shared)


def _join_blocks(a: Block, a_counts: tuple[int, ...], b: Block, b_counts: tuple[int, ...]) -> Block | None:
    if isinstance(a, DenseBlock) and isinstance(b, DenseBlock):
        keys = interleaved(a.keys, a_counts, b.keys, b_counts)
        return DenseBlock(keys, interleaved(a.values, a_counts, b.values, b_counts))
    join = getattr(a, "joined", None)
    return join(b) if join is not None and type(a) is type(b) else None
