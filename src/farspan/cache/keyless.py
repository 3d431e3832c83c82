"""Values without keys: entries of a layer that goes by the keys of another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from farspan.cache.block import Block, interleaved, register_block, storage_bytes


@register_block
@dataclass(frozen=True, eq=False)
class KeylessBlock:
    """Values [E, Dv] of heads that hold equal numbers, and keys [H · s, D] of the first s entries of each head alone.

    The other keys are those of the same entries in the layer `leader`, whose queries ask for them too. `lent` is the
    block that has them; an extent that follows another binds it, for as long as somebody looks.
    """

    kind: ClassVar[str] = "keyless"
    heads: int
    leader: int
    own: Tensor
    values: Tensor
    lent: Block | None = None

    @property
    def entries(self) -> int:
        """E, all heads together."""
        return self.values.shape[0]

    @property
    def own_count(self) -> int:
        """s, of each head."""
        return self.own.shape[0] // self.heads

    @property
    def nbytes(self) -> int:
        """Values, and the keys of its own."""
        return storage_bytes(self.own, self.values)

    def keyed(self, lent: Block) -> KeylessBlock:
        """The same block with the keys of `lent`, which holds the same entries of another layer."""
        assert lent.entries == self.entries, "a layer and the one it follows hold the same entries"
        return replace(self, lent=lent)

    def parts(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """-> keys [H, s, D] and values of the entries with keys of their own, and keys and values of the others."""
        values = self.values.unflatten(0, (self.heads, -1))
        own = self.own.unflatten(0, (self.heads, -1))
        lent = self._keys().unflatten(0, (self.heads, -1))
        count = self.own_count
        return (own, values[:, :count]), (lent[:, count:], values[:, count:])

    def unpack(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Entries start..stop; the keys are the leader's where it has none of its own."""
        keys = self._keys().clone()
        keys.unflatten(0, (self.heads, -1))[:, : self.own_count] = self.own.unflatten(0, (self.heads, -1))
        return keys[start:stop], self.values[start:stop]

    def joined(self, other: KeylessBlock) -> KeylessBlock | None:
        """Both, each head's entries one after the other, bound to nothing; None where own keys would stand between."""
        if other.own_count:
            return None
        counts = ((block.entries // block.heads,) * block.heads for block in (self, other))
        mine, its = counts
        return replace(self, values=interleaved(self.values, mine, other.values, its), lent=None)

    def _keys(self) -> Tensor:
        assert self.lent is not None, "an extent binds the keys before anybody looks at them"
        return self.lent.unpack(0, self.entries)[0]

    def tensors(self) -> dict[str, Tensor]:
        """Two tensors; the other keys are the leader's."""
        return {"own": self.own, "values": self.values}

    def data(self) -> dict[str, Any]:
        """Heads, and which layer leads."""
        return {"heads": self.heads, "leader": self.leader}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> KeylessBlock:
        """The inverse of `tensors` and `data`, bound to nothing."""
        return cls(heads=data["heads"], leader=data["leader"], own=tensors["own"], values=tensors["values"])

    @classmethod
    def pack(cls, keys: Tensor, values: Tensor, heads: int, own: int, leader: int) -> KeylessBlock:
        """keys [E, D] and values [E, Dv] of heads of equal numbers; the first `own` entries of each keep their keys."""
        first = keys.unflatten(0, (heads, -1))[:, :own].flatten(0, 1)
        return cls(heads=heads, leader=leader, own=first.clone(), values=values.clone())
