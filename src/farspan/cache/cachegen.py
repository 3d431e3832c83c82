"""Keys and values as a short stream of bytes: deltas to an anchor every ten tokens, quantised and arithmetically coded.

Source: CacheGen (Liu et al. 2024), section 5. Values of a channel change little from token to token, so of every ten
tokens the first is an anchor of 8 bits and the others are their differences to it, in steps that are wider in deeper
layers, because these bear more. Each channel's differences are coded by the distribution that suits it.

A chunk of tokens needs nothing but itself to be decoded, so chunks can be sent one by one and decoded side by side: by
processes, since the package that codes keeps Python's lock while it does.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from farspan.cache.block import Block, DenseBlock, raw, register_block, storage_bytes
from farspan.errors import ContextFileError, DamagedFile, OptionError

GROUP = 10  # tokens to an anchor
CHUNK = 1500  # tokens that are decoded together
BINS = (0.5, 1.0, 1.5)  # steps of differences in the first, middle and last third of the layers, in deviations
LEVELS = (0.1, 0.25, 0.5, 1.0)  # times these; level 3 has the source's own
REACH = 127  # a difference is at most so many steps
CLASSES = 64  # distributions to choose from

_HEAD = struct.Struct("<III")  # rows, channels, words of 32 bits
Floats = np.ndarray[Any, np.dtype[np.float32]]


def coder() -> Any:
    """The package that codes; raises OptionError where it is not installed."""
    try:
        import constriction
    except ImportError:
        raise OptionError(
            "the codec 'cachegen' needs the package constriction; install it: pip install 'farspan[codec]'"
        ) from None
    return constriction


def bin_of(layer: int, layers: int, level: int) -> float:
    """Steps of differences in deviations, for one of `layers` layers at a level from 0 (finest) to 3."""
    return BINS[min(3 * layer // layers, 2)] * LEVELS[level]


@functools.cache
def _tables() -> np.ndarray[Any, np.dtype[np.float64]]:
    """[CLASSES, 2 * REACH + 1] probabilities of steps -REACH..REACH: half of them two-sided geometric, half
    bell-shaped, each from narrow to wide.

    Made of sums and products of doubles, never of a library's exponential, so that a file reads alike on every machine.
    """
    tables = []
    for index in range(CLASSES):
        width = 0.05 * 1.17 ** (index // 2)  # to 5.6 steps (geometric) or 20 (bell)
        bell = index % 2
        ratio = 1 / (1 + 1 / width) if not bell else 1 / (1 + 1 / (12 * width * width))
        fall, side = (ratio * ratio if bell else 1.0), [1.0]
        for _ in range(REACH):
            side.append(side[-1] * ratio)
            ratio *= fall
        table = np.array([*side[:0:-1], *side]) + 1e-6
        tables.append(table / table.sum())
    return np.stack(tables)


def _model(index: int) -> Any:
    return coder().stream.model.Categorical(_tables()[index].astype(np.float32), perfect=False)


# -- rows of one chunk -----------------------------------------------------------------------------------------------


def _half(x: Floats) -> np.ndarray[Any, np.dtype[np.float16]]:
    """Rounded up to float16, and never 0; raises OptionError beyond what that can say."""
    with np.errstate(over="ignore"):
        out = x.astype(np.float16)
    out = np.where(out.astype(np.float32) < x, np.nextafter(out, np.float16(np.inf)), out)
    if not np.isfinite(out).all():
        raise OptionError(f"keys or values reach {float(np.abs(x).max()):.3g}, beyond what the codec's scales can say")
    return np.maximum(out, np.float16(2.0**-24))


@dataclass(frozen=True)
class Quantised:
    """Rows [n, C] as integers, before they are coded: what a decoder gives back bit by bit."""

    low: np.ndarray  # [C] float16
    scale: np.ndarray  # [C] float16
    width: np.ndarray  # [C] float16
    anchors: np.ndarray  # [ceil(n / GROUP), C] uint8
    steps: np.ndarray  # [n - anchors, C] int8, the other rows in order

    @classmethod
    def of(cls, rows: Floats, step: float) -> Quantised:
        """rows [n, C] float32; `step` in standard deviations of a channel's differences."""
        anchors = rows[::GROUP]
        low = _floor_half(anchors.min(0))
        scale = _half((anchors.max(0) - low.astype(np.float32)) / 255)
        codes = np.clip(np.rint((anchors - low.astype(np.float32)) / scale.astype(np.float32)), 0, 255)
        codes = codes.astype(np.uint8)
        differences = _others(rows) - _others(_spread(_anchors(low, scale, codes), len(rows)))
        deviation = differences.std(0) if len(differences) else np.zeros(rows.shape[1], np.float32)
        largest = np.abs(differences).max(0) if len(differences) else deviation
        width = _half(np.maximum(step * deviation, largest / REACH).astype(np.float32))
        steps = np.clip(np.rint(differences / width.astype(np.float32)), -REACH, REACH).astype(np.int8)
        return cls(low, scale, width, codes, steps)

    @property
    def rows(self) -> Floats:
        """[n, C] float32: what the integers stand for."""
        count = len(self.anchors) + len(self.steps)
        out = _spread(_anchors(self.low, self.scale, self.anchors), count)
        other = np.arange(count) % GROUP != 0
        out[other] += self.steps.astype(np.float32) * self.width.astype(np.float32)
        return out

    def coded(self) -> bytes:
        """As bytes: ranges and classes of the channels, anchors, and the steps class by class."""
        classes = _classes(self.steps)
        encoder = coder().stream.queue.RangeEncoder()
        for index in np.unique(classes):
            symbols = self.steps[:, classes == index].T.reshape(-1).astype(np.int32) + REACH
            if symbols.size:
                encoder.encode(symbols, _model(int(index)))
        words = encoder.get_compressed().astype("<u4")
        head = _HEAD.pack(len(self.anchors) + len(self.steps), self.anchors.shape[1], len(words))
        parts = (self.low, self.scale, self.width, classes, self.anchors, words)
        return head + b"".join(part.tobytes() for part in parts)

    @classmethod
    def from_bytes(cls, data: memoryview) -> tuple[Quantised, int]:
        """The inverse of `coded` -> (rows as integers, bytes read); raises DamagedFile for what makes no sense."""
        try:
            return cls._read(data)
        except (struct.error, ValueError, IndexError, AssertionError) as error:
            raise DamagedFile(f"coded entries are damaged: {error}. Read the document again.") from error

    @classmethod
    def _read(cls, data: memoryview) -> tuple[Quantised, int]:
        count, channels, length = _HEAD.unpack_from(data)
        at, anchor_count = _HEAD.size, -(-count // GROUP)
        taken = []
        for kind, size in (("<f2", channels), ("<f2", channels), ("<f2", channels), ("u1", channels),
                           ("u1", anchor_count * channels), ("<u4", length)):  # fmt: skip
            part = np.frombuffer(data, kind, size, at)
            taken.append(part)
            at += part.nbytes
        low, scale, width, classes, anchors, words = taken
        steps = np.empty((count - anchor_count, channels), np.int8)
        decoder = coder().stream.queue.RangeDecoder(words.astype(np.uint32))
        for index in np.unique(classes):
            mine = classes == index
            if steps.size:
                symbols = decoder.decode(_model(int(index)), int(mine.sum()) * len(steps))
                steps[:, mine] = (symbols - REACH).astype(np.int8).reshape(-1, len(steps)).T
        return cls(low, scale, width, anchors.reshape(anchor_count, channels), steps), at


def _floor_half(x: Floats) -> np.ndarray[Any, np.dtype[np.float16]]:
    """Rounded down to float16."""
    with np.errstate(over="ignore"):
        out = x.astype(np.float16)
    out = np.where(out.astype(np.float32) > x, np.nextafter(out, np.float16(-np.inf)), out)
    if not np.isfinite(out).all():
        raise OptionError(f"keys or values reach {float(np.abs(x).max()):.3g}, beyond what the codec's scales can say")
    return out


def _anchors(low: np.ndarray, scale: np.ndarray, codes: np.ndarray) -> Floats:
    steps = codes.astype(np.float32) * scale.astype(np.float32)
    return (low.astype(np.float32) + steps).astype(np.float32, copy=False)


def _spread(anchors: Floats, count: int) -> Floats:
    """Each anchor in the place of all the tokens of its group."""
    return np.repeat(anchors, GROUP, 0)[:count]


def _others(rows: Floats) -> Floats:
    """The rows that are no anchors."""
    return rows[np.arange(len(rows)) % GROUP != 0]


def _classes(steps: np.ndarray) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """steps [m, C] -> [C]: the distribution that takes the fewest bits for each channel."""
    sizes = np.abs(steps.astype(np.int16))
    counts = np.stack([(sizes == size).sum(0) for size in range(int(sizes.max(initial=0)) + 1)], 1)
    bits = -np.log2(_tables()[:, REACH : REACH + counts.shape[1]])
    return (counts @ bits.T).argmin(1).astype(np.uint8)


# -- blocks ----------------------------------------------------------------------------------------------------------


@register_block
@dataclass(frozen=True, eq=False)
class CachegenBlock:
    """A dense block on its way through a file or a network: `stream` holds chunk after chunk, `lengths` bytes each.

    What is read from a file is decoded at once and becomes a DenseBlock.
    """

    kind: ClassVar[str] = "cachegen"
    counts: tuple[int, ...]
    sizes: tuple[int, int]  # of a key and of a value
    dtype: torch.dtype
    chunk: int
    lengths: tuple[int, ...]
    stream: Tensor  # [sum of lengths] uint8

    @classmethod
    def encode(cls, block: Block, counts: tuple[int, ...], step: float, *, chunk: int = CHUNK) -> CachegenBlock:
        """A dense block's entries; heads that hold equal numbers are coded together."""
        keys, values = block.unpack(0, block.entries)
        parts = []
        for columns in zip(_sequences(keys, counts), _sequences(values, counts), strict=True):
            for runs in zip(*(column.split(chunk) for column in columns), strict=True):
                parts.append(b"".join(Quantised.of(run.float().cpu().numpy(), step).coded() for run in runs))
        stream = torch.frombuffer(bytearray(b"".join(parts)), dtype=torch.uint8) if parts else torch.empty(0).byte()
        sizes = (keys.shape[-1], values.shape[-1])
        return cls(tuple(counts), sizes, keys.dtype, chunk, tuple(map(len, parts)), stream)

    @property
    def entries(self) -> int:
        """E, all heads together."""
        return sum(self.counts)

    @property
    def nbytes(self) -> int:
        """Bytes of the stream."""
        return storage_bytes(self.stream)

    @property
    def decoded_nbytes(self) -> int:
        """Bytes of the DenseBlock that comes of it."""
        return self.entries * sum(self.sizes) * self.dtype.itemsize

    def decode_chunk(self, index: int) -> tuple[Floats, Floats]:
        """-> keys and values [n, C] float32 of one chunk, which needs no other."""
        edges = list(accumulate(self.lengths, initial=0))
        data = raw(self.stream[edges[index] : edges[index + 1]])
        keys, at = Quantised.from_bytes(data)
        values, end = Quantised.from_bytes(data[at:])
        if at + end != len(data):
            raise DamagedFile(f"coded entries are damaged: {len(data) - at - end} bytes follow a chunk")
        return keys.rows, values.rows

    def decode(self) -> DenseBlock:
        """All chunks, as a block in the dtype that was encoded."""
        chunks = [self.decode_chunk(i) for i in range(len(self.lengths))]
        keys, values = ([torch.from_numpy(each[i]) for each in chunks] for i in (0, 1))
        return DenseBlock(*(self._entries(rows, size) for rows, size in zip((keys, values), self.sizes, strict=True)))

    def _entries(self, rows: list[Tensor], size: int) -> Tensor:
        """Chunks [n, C] of all sequences -> [E, size] head after head."""
        parts = [part.unflatten(-1, (-1, size)).transpose(0, 1) for part in rows]  # [h, n, size]
        if _together(self.counts):
            out = torch.cat(parts, 1).flatten(0, 1) if parts else torch.empty(0, size)
        else:
            out = torch.cat([part[0] for part in parts]) if parts else torch.empty(0, size)
        if len(out) != self.entries:
            raise DamagedFile(f"coded entries are damaged: {len(out)} of {self.entries} are there")
        return out.to(self.dtype).contiguous().to(self.stream.device)

    def unpack(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Decodes everything; a context opened from a file holds what `decode` gives."""
        return self.decode().unpack(start, stop)

    def tensors(self) -> dict[str, Tensor]:
        """The stream."""
        return {"stream": self.stream}

    def data(self) -> dict[str, Any]:
        """What the stream does not say."""
        return {
            "counts": list(self.counts),
            "sizes": list(self.sizes),
            "dtype": str(self.dtype).removeprefix("torch."),
            "chunk": self.chunk,
            "lengths": list(self.lengths),
        }

    @classmethod
    def coded(cls, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> CachegenBlock:
        """The inverse of `tensors` and `data`."""
        return cls(
            counts=tuple(data["counts"]),
            sizes=(data["sizes"][0], data["sizes"][1]),
            dtype=getattr(torch, data["dtype"]),
            chunk=data["chunk"],
            lengths=tuple(data["lengths"]),
            stream=tensors["stream"],
        )

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> DenseBlock:
        """What was saved, decoded; raises ContextFileError where the package that decodes is missing."""
        try:
            return cls.coded(tensors, data).decode()
        except OptionError as error:
            raise ContextFileError(str(error)) from error


def _together(counts: tuple[int, ...]) -> bool:
    return len(set(counts)) == 1


def _sequences(entries: Tensor, counts: tuple[int, ...]) -> list[Tensor]:
    """[E, D] head after head -> [N, H · D] where heads hold equal numbers, else [N_h, D] per head."""
    if _together(counts) and len(entries):
        return [entries.unflatten(0, (len(counts), -1)).transpose(0, 1).flatten(1)]
    edges = accumulate(counts, initial=0)
    return [entries[a:b] for a, b in pairwise(edges) if b > a]
