"""The contract of a store: packing is how a sealed extent is held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from farspan.cache import Block, Extent
from farspan.cache.lowrank import Turn
from farspan.cache.spill import Shelf
from farspan.registry import Method
from farspan.signals import Observation


@dataclass(frozen=True, kw_only=True)
class Place(Method):
    """Where sealed entries are held; whatever the plan's store is packs them first."""

    family: ClassVar[str] = "store"
    slot: ClassVar[str] = "place"

    def open(self) -> Shelf:
        """-> where the extents of one read or one conversation are put."""
        raise TypeError(f"{type(self).__name__} defines no open()")

    def applies_on(self, device: torch.device) -> str | None:
        """None if entries of a model on this device can be held here, else the reason."""
        return None


class Witness(Protocol):
    """The moment in which entries are packed, as far as a store may know it."""

    @property
    def turn(self) -> Turn | None:
        """The layer's own rotation by differences of positions; None where the model does not rotate keys."""
        ...

    @property
    def leader(self) -> int | None:
        """The layer whose keys and queries these entries go by (see `Store.follows`); None where by their own."""
        ...

    def observe(self, extent: Extent) -> list[Observation]:
        """The extent's entries under the queries that the store asked for: all heads together where they hold equal
        numbers, else one observation per head. `lse` counts all that the layer holds.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Store(Method):
    """How sealed entries are held: `pack(keys, values, counts) -> Block`; the block unpacks itself."""

    family: ClassVar[str] = "store"
    slot: ClassVar[str] = "store"
    error: ClassVar[float] = 0.0
    """How far a held number may be off, as a share of the largest magnitude in its head; 0 for a lossless store."""

    def candidates(self) -> tuple[Store | None, ...]:
        """What a budget in bytes chooses from, the most precise first; None stands for the model's dtype.

        More than one for a store that leaves its precision to the budget: the first that holds everything read, or
        else the last.
        """
        return (self,)

    def keeps_back(self) -> int:
        """How many of the newest entries of each head stay in the model's dtype."""
        return 0

    def pack(self, keys: Tensor, values: Tensor, counts: tuple[int, ...]) -> Block:
        """keys [E, D], values [E, Dv], head after head, counts[h] entries of head h -> an immutable block."""
        raise TypeError(f"{type(self).__name__} defines no pack(keys, values, counts)")

    def nbytes(self, count: int, heads: int, head_size: int, value_size: int, dtype: torch.dtype) -> int:
        """Bytes of the block when each of `heads` heads holds `count` entries, exactly as allocated."""
        raise TypeError(f"{type(self).__name__} defines no nbytes(...)")

    def holds(self, count: int, heads: int, head_size: int, value_size: int, dtype: torch.dtype) -> int:
        """Bytes when each of `heads` heads holds `count` entries: packed, but for what is kept back."""
        back = min(self.keeps_back(), count)
        dense = back * heads * (head_size + value_size) * dtype.itemsize
        return dense + (self.nbytes(count - back, heads, head_size, value_size, dtype) if count > back else 0)

    def applies(self, head_size: int, value_size: int) -> str | None:
        """None if heads of these sizes can be packed, else the reason."""
        return None

    def follows(self, layers: Sequence[int]) -> dict[int, int]:
        """Which of the model's full-attention `layers` hold no keys of what they seal -> the earlier one of them whose
        keys they have instead, entry for entry, and whose queries ask for them: its scores, with values of their own.
        """
        return {}

    def keyless(self, count: int) -> int:
        """How many of `count` entries in each head of a layer that follows have no key of their own."""
        return 0

    def asks(self, queries: int) -> int:
        """How many of the last `queries` queries it wants to see when it packs."""
        return 0

    def seal(self, extent: Extent, witness: Witness | None = None) -> Extent:
        """The same entries, packed; `witness` says what there is to know about them."""
        keys, values = extent.block.unpack(0, extent.offsets[-1])
        return extent.holding(self.pack(keys, values, extent.counts))
