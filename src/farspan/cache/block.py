"""The payload of an extent: keys and values at some precision, immutable.

A kind of block whose pages can be brought one by one from elsewhere says how in `paging()`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from farspan.errors import ContextFileError


@runtime_checkable
class Block(Protocol):
    """Keys and values of E entries, head after head; how many belong to which head is the extent's business.

    A block knows how to give back any run of entries in floating point, what it weighs, and how to be
    written as named tensors plus plain data. Kernels may recognise a kind and attend on it without unpacking.
    """

    kind: ClassVar[str]

    @property
    def entries(self) -> int:
        """How many entries E the block holds, all heads together."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of storage allocated: codes, scales and indices alike."""
        ...

    def unpack(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """-> keys [n, D], values [n, Dv] of entries start..stop in floating point."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """The storage by name, as it is written to a file."""
        ...

    def data(self) -> dict[str, Any]:
        """What the tensors do not say (JSON values)."""
        ...

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> Block:
        """The inverse of `tensors` and `data`; a block that only travels gives the one it carries."""
        ...


BLOCKS: dict[str, type[Block]] = {}
BlockClass = TypeVar("BlockClass", bound=type[Any])


def register_block(cls: BlockClass) -> BlockClass:
    """Class decorator: make a kind of block readable from context files."""
    BLOCKS[cls.kind] = cls
    return cls


def block_from_tensors(kind: str, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> Block:
    """Rebuild a block of a registered kind; an unknown kind names the store that is missing here."""
    if kind not in BLOCKS:
        raise ContextFileError(
            f"the context holds blocks of kind {kind!r}, which no store installed here can read; "
            f"known kinds: {', '.join(sorted(BLOCKS))}. Install the plug-in that wrote it."
        )
    return BLOCKS[kind].from_tensors(tensors, data)


def storage_bytes(*tensors: Tensor) -> int:
    """Bytes allocated behind tensors, counting a shared storage once."""
    seen = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t.numel()}
    return sum(seen.values())


def raw(tensor: Tensor) -> memoryview:
    """The used bytes of a tensor of any dtype, strides and device."""
    return tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().data


def interleaved(a: Tensor, a_counts: tuple[int, ...], b: Tensor, b_counts: tuple[int, ...]) -> Tensor:
    """Two tensors of entries, head after head, as one: each head's own of `a`, then of `b`."""
    heads = zip(a.split(list(a_counts)), b.split(list(b_counts)), strict=True)
    return torch.cat([entries for pair in heads for entries in pair])


class Paging(NamedTuple):
    """How a kind of block is cut: every `size` entries of a head are a page. Its tensors have a row for each entry, but
    those in `per_page` have one for each page.
    """

    size: int
    per_page: frozenset[str] = frozenset()


@register_block
@dataclass(frozen=True, eq=False)
class DenseBlock:
    """Keys [E, D] and values [E, Dv] in the model's own dtype."""

    kind: ClassVar[str] = "dense"
    keys: Tensor
    values: Tensor

    @property
    def entries(self) -> int:
        """E, all heads together."""
        return self.keys.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of the two storages."""
        return storage_bytes(self.keys, self.values)

    def unpack(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Views, no copy."""
        return self.keys[start:stop], self.values[start:stop]

    def paging(self) -> Paging:
        """A page is 4 KiB of keys, of 128 channels at 16 bits."""
        return Paging(16)

    def tensors(self) -> dict[str, Tensor]:
        """Two tensors."""
        return {"keys": self.keys, "values": self.values}

    def data(self) -> dict[str, Any]:
        """Nothing beyond the tensors."""
        return {}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> DenseBlock:
        """The inverse of `tensors`."""
        return cls(keys=tensors["keys"], values=tensors["values"])
