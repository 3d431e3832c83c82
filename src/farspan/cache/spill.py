"""Extents that lie elsewhere: in a file without a name, or in host memory beside a device."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from farspan.cache.block import Block, block_from_tensors, raw
from farspan.cache.extent import Extent
from farspan.cache.paging import Paged, Pages, Run, joined
from farspan.errors import DamagedFile, StorageError


class Shelf(Protocol):
    """Where extents are put, each to be brought back whenever somebody looks at it."""

    def put(self, extent: Extent, layer: int) -> Extent:
        """-> the same entries, of which only the positions stay in memory."""
        ...


class _Slot(NamedTuple):
    """Where a tensor lies in the file."""

    name: str
    dtype: torch.dtype
    shape: torch.Size
    offset: int
    nbytes: int


@dataclass(frozen=True)
class _Record:
    """One extent in the file."""

    kind: str
    data: dict[str, Any]
    slots: tuple[_Slot, ...]
    device: torch.device
    crc: int
    layer: int
    pages: Pages | None
    page_crcs: dict[str, np.ndarray]
    """By tensor, one uint32 for each page."""

    @property
    def nbytes(self) -> int:
        return sum(slot.nbytes for slot in self.slots)


class Spill:
    """A temporary file that has no name: nobody can remove it, overwrite it or cut it short, and whatever becomes of
    this process leaves nothing behind. It goes with the last extent that lies in it.

    Extents are read with `pread` into memory of their own and verified each time, so that a layer takes memory only
    while it is attended to. When the first extent of a layer is read whole, the system is told to fetch the next
    layer's; where few entries are read, only the pages that hold them are, each with a checksum of its own.
    """

    def __init__(self, directory: str | None = None) -> None:
        self.directory = tempfile.gettempdir() if directory is None else directory
        try:
            # closed by the finalizer: it outlives every block
            self._file = tempfile.TemporaryFile(dir=self.directory, buffering=0)  # noqa: SIM115
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise StorageError(
                f"cannot spill into {self.directory}: {reason}. Give a folder that can be written to: "
                "offload(path=/where/there/is/room)"
            ) from error
        self._end = 0
        self._layers: dict[int, list[tuple[int, int]]] = {}
        self._current: int | None = None
        weakref.finalize(self, self._file.close)

    def put(self, extent: Extent, layer: int) -> Extent:
        """Write an extent's block; raises StorageError if the disk refuses, and leaves the extent as it was."""
        block = extent.block
        start, crc, slots, pages = self._end, 0, [], Pages.of(block, extent.offsets)
        page_crcs: dict[str, np.ndarray] = {}
        for name, tensor in block.tensors().items():
            view = raw(tensor)
            self._write(view)
            slots.append(_Slot(name, tensor.dtype, tensor.shape, self._end, len(view)))
            self._end += len(view)
            crc = zlib.crc32(view, crc)
            if pages is not None:
                page_crcs[name] = _checksums(view, pages.rows(name, pages.every()), len(view) // max(1, len(tensor)))
        self._layers.setdefault(layer, []).append((start, self._end - start))
        device = next(iter(block.tensors().values())).device
        record = _Record(block.kind, block.data(), tuple(slots), device, crc, layer, pages, page_crcs)
        paged = None if pages is None else Paged(pages, partial(self._bring_pages, record))
        return extent.elsewhere(partial(self._bring, record), record.nbytes, paged)

    def _write(self, view: memoryview) -> None:
        done = 0
        try:
            while done < len(view):
                done += os.pwrite(self._file.fileno(), view[done:], self._end + done)
        except OSError as error:
            raise StorageError(self._why_not_written(error, len(view))) from error

    def _why_not_written(self, error: OSError, size: int) -> str:
        message = f"cannot spill {size:,} bytes into {self.directory}: {(error.strerror or str(error)).lower()}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            with contextlib.suppress(OSError):
                message += f", {shutil.disk_usage(self.directory).free:,} are free"
        return f"{message}. Give a folder with more room: offload(path=/where/there/is/room)"

    def _bring(self, record: _Record) -> Block:
        self._prefetch(record.layer)
        tensors: dict[str, Tensor] = {}
        crc = 0
        for slot in record.slots:
            tensor = torch.empty(slot.shape, dtype=slot.dtype)
            view = raw(tensor)
            self._read(view, slot.offset)
            crc = zlib.crc32(view, crc)
            tensors[slot.name] = tensor.to(record.device)
        if crc != record.crc:
            raise self._damaged(record)
        return block_from_tensors(record.kind, tensors, record.data)

    def _damaged(self, record: _Record) -> DamagedFile:
        return DamagedFile(
            f"the spill file in {self.directory} is damaged: layer {record.layer} is not what was written. "
            "Check the disk, and read the document again."
        )

    def _bring_pages(self, record: _Record, pages: Sequence[Tensor]) -> Block:
        """A block of some pages of each head."""
        assert record.pages is not None, "only blocks with pages are brought so"
        slots = {slot.name: slot for slot in record.slots}
        numbers = record.pages.numbers(pages).numpy()

        def rows(name: str, runs: Sequence[Run]) -> Tensor:
            slot = slots[name]
            size = slot.nbytes // slot.shape[0]
            tensor = torch.empty(sum(b - a for a, b in runs), *slot.shape[1:], dtype=slot.dtype)
            view, at = raw(tensor), 0
            for a, b in joined(runs):
                self._read(view[at : at + (b - a) * size], slot.offset + a * size)
                at += (b - a) * size
            ends = [0, *accumulate(b - a for a, b in runs)]
            if not np.array_equal(_checksums(view, list(pairwise(ends)), size), record.page_crcs[name][numbers]):
                raise self._damaged(record)
            return tensor.to(record.device)

        return record.pages.block(record.kind, list(slots), record.data, pages, rows)

    def _read(self, view: memoryview, offset: int) -> None:
        done = 0
        while done < len(view):
            try:
                count = os.preadv(self._file.fileno(), [view[done:]], offset + done)
            except OSError as error:
                raise DamagedFile(f"the spill file in {self.directory} cannot be read: {error.strerror}") from error
            if not count:
                raise DamagedFile(f"the spill file in {self.directory} was cut short at {offset + done:,} bytes")
            done += count

    def _prefetch(self, layer: int) -> None:
        """Have the system read the next layer's extents while this one is attended to."""
        if layer == self._current or not hasattr(os, "posix_fadvise"):
            return
        self._current = layer
        following = min((n for n in self._layers if n > layer), default=min(self._layers))
        for offset, length in self._layers[following]:
            with contextlib.suppress(OSError):  # advice only
                os.posix_fadvise(self._file.fileno(), offset, length, os.POSIX_FADV_WILLNEED)


class HostShelf:
    """Host memory for extents of a model that runs on a device of its own; pinned, so that copies are fast."""

    def put(self, extent: Extent, layer: int) -> Extent:
        """Copy an extent's block to the host."""
        block = extent.block
        kind, data, device = block.kind, block.data(), next(iter(block.tensors().values())).device
        there, pages = {name: t.cpu() for name, t in block.tensors().items()}, Pages.of(block, extent.offsets)
        if device.type == "cuda":
            there = {name: t.pin_memory() for name, t in there.items()}

        def bring() -> Block:
            return block_from_tensors(kind, {n: t.to(device, non_blocking=True) for n, t in there.items()}, data)

        def rows(name: str, runs: Sequence[Run]) -> Tensor:
            whole = there[name]
            parts = [whole[a:b].view(torch.uint8) for a, b in joined(runs)]  # as bytes: torch concatenates no float8
            return torch.cat(parts or [whole[:0].view(torch.uint8)]).view(whole.dtype).to(device)

        def bring_pages(wanted: Sequence[Tensor]) -> Block:
            assert pages is not None, "only blocks with pages are brought so"
            return pages.block(kind, list(there), data, wanted, rows)

        paged = None if pages is None else Paged(pages, bring_pages)
        return extent.elsewhere(bring, sum(t.nbytes for t in there.values()), paged)


def _checksums(view: memoryview, runs: Sequence[Run], size: int) -> np.ndarray:
    """A checksum of each run of rows of `size` bytes."""
    return np.array([zlib.crc32(view[a * size : b * size]) for a, b in runs], dtype=np.uint32)
