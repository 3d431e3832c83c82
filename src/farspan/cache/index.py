"""What a fetch method knows of an extent beforehand: named tensors, made once, shared and saved with the extent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from farspan.cache.block import storage_bytes

SEPARATOR = "."  # between a group's number and a tensor's name in a file


@dataclass(frozen=True, eq=False)
class Index:
    """Tensors by name for each group of heads: one group [H, ...] where all heads hold equally many entries, else one
    group [1, ...] per head. `key` names the method and the parameters that made it: another's is no use.
    """

    key: str
    groups: tuple[Mapping[str, Tensor], ...]

    def of(self, heads: slice) -> Mapping[str, Tensor]:
        """The tensors of some heads: any of a single group, else one head."""
        if len(self.groups) > 1:
            assert heads.stop - heads.start == 1, "heads of unequal length are asked one by one"
            return self.groups[heads.start]
        return {name: tensor[heads] for group in self.groups for name, tensor in group.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of storage."""
        return storage_bytes(*self.tensors().values())

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name, as it is written to a file."""
        return {f"{i}{SEPARATOR}{name}": t for i, group in enumerate(self.groups) for name, t in group.items()}

    @classmethod
    def from_tensors(cls, key: str, groups: int, tensors: Mapping[str, Tensor]) -> Index:
        """The inverse of `tensors`."""
        rebuilt: tuple[dict[str, Tensor], ...] = tuple({} for _ in range(groups))
        for name, tensor in tensors.items():
            number, _, its = name.partition(SEPARATOR)
            rebuilt[int(number)][its] = tensor
        return cls(key, rebuilt)


class Unread(NamedTuple):
    """An index that still lies in a file, and the bytes it will take."""

    load: Callable[[], Index]
    nbytes: int
