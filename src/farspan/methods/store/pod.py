"""PoD: layers that share the scores of distant tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from farspan.cache import Block, DenseBlock, Extent, KeylessBlock
from farspan.errors import PlanDoesNotApply, PlanError
from farspan.methods.store.base import Store, Witness
from farspan.registry import Paper

RUNS = re.compile(r"\d+-\d+(,\s*\d+-\d+)*")


@dataclass(frozen=True, kw_only=True)
class Pod(Store):
    """Hold the keys of distant tokens in the first layer of each group alone; the others take its scores of them.

    Distant is what has sealed, but for the first `sinks` tokens and the newest `recent` of each head: of those every
    layer keeps its keys, and of all tokens its values. A layer that follows scores distant tokens with the queries and
    keys of its leader, head by head, and proximal ones with its own; one softmax over both weighs the two outputs by
    their shares of its mass, as the paper's gate does. Groups are `group` full-attention layers that follow each other,
    or those written in `layers`, such as '0-1, 4-6'; heads of a group must be alike.

    Source: Ma et al. 2024, "Compressing KV Cache for Long-Context LLM Inference with Inter-Layer Attention
    Similarity", section 2. The paper groups by the similarity of attention, head by head, then trains the model to
    share; here nothing is trained, so what layers do not have in common is lost. The boundary moves when entries seal,
    not with each query. Nothing can be chosen, fetched or moved of entries without keys, so other methods that do are
    refused.
    """

    paper: ClassVar[Paper | None] = Paper("PoD", arxiv="2412.02252", section="2", id=345)
    conflicts: ClassVar[tuple[str, ...]] = ("score", "allocate", "fold", "fetch", "prefill", "parallel")

    group: int = 2
    layers: str = ""
    sinks: int = 16
    recent: int = 64

    def check(self) -> None:
        """Groups have two layers or more, and are written in order, each layer once."""
        for name, least in (("group", 2), ("sinks", 0), ("recent", 0)):
            if getattr(self, name) < least:
                raise PlanError(f"{name}={getattr(self, name)} is too small; give {least} or more")
        if self.layers and not RUNS.fullmatch(self.layers.strip()):
            raise PlanError(f"layers={self.layers!r} is no list of runs of layers; write them such as '0-1, 4-6'")
        bounds = [number for run in self._runs() for number in run]
        if any(a >= b for a, b in pairwise(bounds)):
            raise PlanError(f"layers={self.layers!r}: every run ends after it begins, and before the next begins")

    def keeps_back(self) -> int:
        """The recent ones."""
        return self.recent

    def follows(self, layers: Sequence[int]) -> dict[int, int]:
        """All but the first of every group, after that."""
        if not self.layers:
            runs = [list(layers[at : at + self.group]) for at in range(0, len(layers), self.group)]
        else:
            runs = [list(range(first, last + 1)) for first, last in self._runs()]
        missing = sorted({layer for run in runs for layer in run} - set(layers))
        if missing:
            raise PlanDoesNotApply(
                f"pod(layers={self.layers!r}) names layer {missing[0]}, and this model's full-attention layers are "
                f"{', '.join(map(str, layers))}"
            )
        found = {layer: run[0] for run in runs for layer in run[1:]}
        if not found:
            raise PlanDoesNotApply(f"pod shares keys between layers, and only {len(layers)} of this model could")
        return found

    def keyless(self, count: int) -> int:
        """What has sealed, but for the sinks."""
        return max(0, count - self.recent - self.sinks)

    def seal(self, extent: Extent, witness: Witness | None = None) -> Extent:
        """Keys and values, or values alone in a layer that follows."""
        if witness is None or witness.leader is None:
            return super().seal(extent)
        assert extent.uniform, "nothing was chosen, so heads hold the same tokens"
        keys, values = extent.block.unpack(0, extent.offsets[-1])
        own = int((extent.head_positions(0) < self.sinks).sum())
        return extent.holding(KeylessBlock.pack(keys, values, extent.heads, own, witness.leader))

    def pack(self, keys: Tensor, values: Tensor, counts: tuple[int, ...]) -> Block:
        """-> DenseBlock, as a leader holds entries."""
        return DenseBlock(keys.clone(), values.clone())

    def nbytes(self, count: int, heads: int, head_size: int, value_size: int, dtype: torch.dtype) -> int:
        """As a leader holds them."""
        return count * heads * (head_size + value_size) * dtype.itemsize

    def _runs(self) -> list[tuple[int, int]]:
        found = (run.split("-") for run in self.layers.split(",") if run.strip())
        return [(int(first), int(last)) for first, last in found]
