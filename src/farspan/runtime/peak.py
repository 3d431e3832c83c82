"""How many bytes of KV a read will need at most, known before its first chunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from farspan.methods.fetch.base import Fetch
from farspan.methods.store.base import Store
from farspan.runtime.layout import LayerLayout, ModelLayout


@dataclass(frozen=True, kw_only=True)
class Peak:
    """A read's sizes: `tokens` is all that will have been seen, `chunk` the longest chunk, `probe` the tokens lent,
    `entries` the budget per head where something is dropped, `shares` what single layers have of it where an allocator
    treats them apart, `appending` says that a context held something before.
    """

    tokens: int
    chunk: int
    probe: int
    entries: int | None
    store: Store | None
    layerwise: bool
    appending: bool
    shares: Mapping[int, int] = field(default_factory=dict)
    state: int = 0
    """Bytes that the scorer accumulates for every entry of every head."""
    folds: bool = False
    """True if what goes is folded into what stays, head by head."""
    spills: bool = False
    """True if what seals is put elsewhere."""
    together: bool = False
    """True if decisions wait until a chunk has passed every layer."""
    fetch: Fetch | None = None
    """What indexes the entries, and reads the context if it says so."""

    def stated(self, layout: ModelLayout) -> int:
        """Bytes of KV at the worst moment of the read, copies in transit included.

        In stream order that is the budget (or everything, packed) plus one chunk in one layer (in every layer, where
        decisions wait for the last one); in layerwise order plus one whole layer. In that one layer a decision needs
        its candidates and what it keeps side by side, and accumulating needs what was accumulated thrice.
        """
        turns = [self._layer(layout, index, layer) for index, layer in enumerate(layout.layers)]
        return sum(rest for rest, _ in turns) + max(work for _, work in turns)

    def _layer(self, layout: ModelLayout, at: int, layer: LayerLayout) -> tuple[int, int]:
        """-> (bytes between this layer's turns, bytes more during one)."""
        entry = layer.heads * layer.entry_bytes(layout.dtype)
        placed = entry + layer.heads * 4  # with a position of its own in every head
        if layer.window is not None:
            return (layer.window - 1) * entry, (layer.window - 1 + self.chunk + self.probe) * entry
        share = self.entries if self.entries is None else self.shares.get(at, self.entries)
        kept = self.tokens if share is None else min(self.tokens, share)
        new = self.tokens if self.layerwise else self.chunk
        packed, index = self._packed(layout, at, kept), self._index(layout, layer, kept)
        reads = self.fetch is not None and self.fetch.read
        if share is None and self.spills:
            back = 0 if self.store is None else self.store.keeps_back() * entry
            sealed = self._packed(layout, at, new)
            kept_here = kept * layer.heads * 4 + back + index
            return kept_here, new * entry + back + 2 * sealed  # one goes, or one is brought
        if share is None:
            joins = self.store is not None or reads
            return packed + index, (new + self.probe) * entry + packed if joins else 0
        rest, tail = max(kept * placed + self.probe * entry, packed) + index, (new + self.probe) * entry
        rest, tail = rest + kept * layer.heads * self.state, tail + new * layer.heads * self.state
        if self.together:
            rest, tail = rest + tail, 0
        lent = not self.appending and not reads and (self.layerwise or self.tokens <= share)  # a tail alone is lent
        gathered = 0 if lent else (kept + new) * placed
        accumulating = 3 * (kept + new) * layer.heads * self.state
        if self.tokens <= share:  # nothing to decide, only to seal
            return rest, tail + max(packed, (gathered + accumulating) * bool(self.state))
        folded = (kept + new) * entry // layer.heads * self.folds
        return rest, tail + gathered + accumulating + kept * placed + folded

    def _index(self, layout: ModelLayout, layer: LayerLayout, count: int) -> int:
        """Bytes of the index of `count` entries in each head, at most, as extents of a chunk or more."""
        if self.fetch is None:
            return 0
        of_chunk = self.fetch.index_bytes(self.chunk, layer.heads, layer.head_size, layout.dtype)
        return (-(-count // self.chunk) + 1) * of_chunk

    def _packed(self, layout: ModelLayout, index: int, count: int) -> int:
        """Bytes of `count` entries in each head, as they are held, and their positions."""
        layer = layout.layers[index]
        positions = count * layer.heads * 4
        if self.store is None:
            return positions + count * layer.heads * layer.entry_bytes(layout.dtype)
        return positions + layout.packed_bytes(self.store, index, count)
