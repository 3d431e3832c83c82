"""The context file: a cache, its token ids and a manifest in one file that any safetensors reader can list.

`container` says how it is written and read; here is what is in it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from farspan.cache.block import Block, DenseBlock, block_from_tensors, raw
from farspan.cache.codec import Recode
from farspan.cache.container import FORMAT, File, checksum, header_of, write
from farspan.cache.extent import Extent
from farspan.cache.index import Index, Unread
from farspan.cache.lowrank import Placement, Turn
from farspan.cache.sequence import LayerCache, SequenceCache
from farspan.errors import DamagedFile

Turns = Callable[[int], Turn | None]


class Opened(NamedTuple):
    """A file's cache (its extents still in the file), and the manifest and arrays that were saved with it."""

    cache: SequenceCache
    manifest: dict[str, Any]
    arrays: dict[str, Tensor]


def save(
    path: str | os.PathLike[str],
    cache: SequenceCache,
    manifest: dict[str, Any],
    arrays: dict[str, Tensor] | None = None,
    *,
    recode: Recode | None = None,
) -> None:
    """Write `cache` with the caller's `manifest` (JSON values) and `arrays`: the whole file, or nothing.

    Extents that still lie in another file are read and verified first. Tensors are streamed one by one; nothing is
    held twice. The trace of decisions (`cache.events`) is not saved. `recode` says how dense blocks are to be written.

    Raises:
        StorageError: the file could not be written; whatever stood at `path` still does.
        DamagedFile: an extent that had to be read from another file is not what was saved there.
    """
    named: dict[str, Tensor] = {}
    layers = [_describe_layer(layer, named, recode) for layer in cache.layers]
    loose = {f"arrays.{name}": array for name, array in (arrays or {}).items()}
    loose |= {"token_ids": cache.ids(), **_loose_tensors(cache)}
    described = {
        "format": FORMAT,
        "seen": cache.seen,
        "next_position": cache.next_position,
        "layers": layers,
        "checksums": {name: checksum([tensor]) for name, tensor in loose.items()},
        "caller": manifest,
    }
    named |= loose
    # widest elements first, as safetensors itself orders them: every tensor is then aligned to its element
    named = dict(sorted(named.items(), key=lambda item: -item[1].dtype.itemsize))
    header = header_of(named, described)
    size = len(header) + sum(t.nbytes for t in named.values())
    write(path, (header, *(partial(raw, t) for t in named.values())), size)


def load(
    path: str | os.PathLike[str], *, device: torch.device | str = "cpu", keep: bool = True, turn: Turns | None = None
) -> Opened:
    """Open a context file: manifest, tails, token ids and arrays now (verified), extents at first touch.

    Keys and values go to `device`; token ids and arrays stay on the CPU. Without `keep`, extents stay in the file: they
    are read and verified whenever somebody looks at them. `turn(layer)` is how that layer rotates keys, for blocks that
    hold them from before.

    Raises:
        ContextFileError: there is no file, or it is not a context.
        DamagedFile: truncated, or other bytes than were saved. An extent raises it when it is first touched.
        NewerFile: the file's format is newer than this farspan knows.
    """
    file = File(path)
    try:
        digits = file.manifest["checksums"]
        tensors = {name: file.read([name], digits[name], repr(name))[name] for name in digits}
        arrays = {n.removeprefix("arrays."): t for n, t in tensors.items() if n.startswith("arrays.")}
        return Opened(_rebuild(file, tensors, _Bringing(torch.device(device), keep, turn)), file.caller, arrays)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise DamagedFile(f"{file.path} is damaged: its manifest contradicts itself ({error!r})") from error


def peek(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest that was given to `save`, with the checks of `load`, reading no tensor."""
    return File(path).caller


def _describe_layer(layer: LayerCache, named: dict[str, Tensor], recode: Recode | None) -> dict[str, Any]:
    """-> the layer's part of the manifest; its extents' tensors go into `named`."""
    extents = []
    for i, extent in enumerate(layer.extents):
        block = extent.block
        held = block.nbytes + extent.positions.untyped_storage().nbytes()
        if recode is not None and isinstance(block, DenseBlock):
            block = recode(block, extent.counts, layer.index)
        parts = dict(sorted({**block.tensors(), "positions": extent.positions}.items()))
        assert len(parts) == len(block.tensors()) + 1, "no tensor of a block may be named 'positions'"
        named |= {f"layers.{layer.index}.extents.{i}.{name}": tensor for name, tensor in parts.items()}
        extents.append(
            {
                "kind": block.kind,
                "data": block.data(),
                "tensors": list(parts),
                "checksum": checksum(parts.values()),
                "offsets": list(extent.offsets),
                "shared": extent.shared,
                "bounds": [extent.first, extent.last],
                "held": held,
                **_describe_index(extent, f"layers.{layer.index}.extents.{i}.index.", named),
            }
        )
    tail = {"first": layer.tail.first, "length": len(layer.tail)}
    described = {"index": layer.index, "window": layer.window, "sealed": layer.sealed, "tail": tail}
    rest: dict[str, Any] = {} if layer.leader is None else {"leader": layer.leader.index}
    rest |= {"pruned": list(layer.pruned)} if layer.pruned else {}
    return {**described, **rest, "state": list(layer.state), "extents": extents}


def _describe_index(extent: Extent, stem: str, named: dict[str, Tensor]) -> dict[str, Any]:
    """-> the part of an extent's manifest about its index, if it has one; the tensors go into `named`."""
    index = extent.index
    if index is None:
        return {}
    tensors = index.tensors()
    named |= {stem + name: tensor for name, tensor in tensors.items()}
    described = {"key": index.key, "groups": len(index.groups), "tensors": list(tensors), "held": index.nbytes}
    return {"index": {**described, "checksum": checksum(tensors.values())}}


def _loose_tensors(cache: SequenceCache) -> dict[str, Tensor]:
    """Tails and per-entry state: what changes, and is therefore read when a file is opened."""
    loose: dict[str, Tensor] = {}
    for layer in cache.layers:
        prefix = f"layers.{layer.index}"
        if len(layer.tail):
            loose[f"{prefix}.tail.keys"], loose[f"{prefix}.tail.values"] = layer.tail.keys, layer.tail.values
        loose |= {f"{prefix}.state.{name}": tensor for name, tensor in layer.state.items()}
    return loose


class _Bringing(NamedTuple):
    """How extents come out of the file."""

    device: torch.device
    keep: bool
    turn: Turns | None


def _rebuild(file: File, tensors: dict[str, Tensor], how: _Bringing) -> SequenceCache:
    cache = SequenceCache([_layer(file, saved, tensors, how) for saved in file.manifest["layers"]])
    cache.lead({saved["index"]: saved["leader"] for saved in file.manifest["layers"] if "leader" in saved})
    cache.feed(tensors["token_ids"])
    cache.seen, cache.next_position = file.manifest["seen"], file.manifest["next_position"]
    return cache


def _layer(file: File, saved: dict[str, Any], tensors: dict[str, Tensor], how: _Bringing) -> LayerCache:
    prefix = f"layers.{saved['index']}"
    layer = LayerCache(saved["index"], saved["window"])
    layer.extents = tuple(_extent(file, saved["index"], i, spec, how) for i, spec in enumerate(saved["extents"]))
    layer.sealed, layer.pruned = saved["sealed"], tuple(saved.get("pruned", ()))
    layer.own = len(layer.extents)  # shared with the file: joining two of them would read both
    layer.tail.first = saved["tail"]["first"]
    if saved["tail"]["length"]:
        keys, values = (tensors[f"{prefix}.tail.{name}"].to(how.device) for name in ("keys", "values"))
        layer.tail.append(keys, values, layer.tail.first)
    layer.state = {name: tensors[f"{prefix}.state.{name}"].to(how.device) for name in saved["state"]}
    return layer


def _extent(file: File, layer: int, index: int, spec: dict[str, Any], how: _Bringing) -> Extent:
    """An extent that is read when somebody looks at it."""
    stem = f"layers.{layer}.extents.{index}."
    slots = {name: file.slots[stem + name] for name in spec["tensors"]}

    def bring() -> tuple[Block, Tensor]:
        read = file.read([stem + name for name in slots], spec["checksum"], f"extent {index} of layer {layer}")
        parts = {name.removeprefix(stem): tensor.to(how.device) for name, tensor in read.items()}
        positions = parts.pop("positions")
        block: Any = block_from_tensors(spec["kind"], parts, spec["data"])
        turn = how.turn(layer) if how.turn is not None else None
        if turn is not None and hasattr(block, "placed"):
            block = block.placed(Placement(turn, positions, spec["shared"]))
        return block, positions

    (first, last), offsets = spec["bounds"], tuple(spec["offsets"])
    nbytes = spec.get("held") or sum(slot.end - slot.begin for slot in slots.values())
    extent = Extent(
        None, None, offsets, shared=spec["shared"], bounds=(first, last), load=bring, nbytes=nbytes, keep=how.keep
    )
    if "index" in spec:
        extent.index = Unread(partial(_index, file, layer, index, spec["index"], how.device), spec["index"]["held"])
    return extent


def _index(file: File, layer: int, extent: int, spec: dict[str, Any], device: torch.device) -> Index:
    stem = f"layers.{layer}.extents.{extent}.index."
    names = [stem + name for name in spec["tensors"]]
    read = file.read(names, spec["checksum"], f"the index of extent {extent} of layer {layer}")
    tensors = {name.removeprefix(stem): tensor.to(device) for name, tensor in read.items()}
    return Index.from_tensors(spec["key"], spec["groups"], tensors)
