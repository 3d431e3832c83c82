"""Heads that a read prunes in cascade: what they would hold is freed, and they put out nothing from then on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from farspan.cache import LayerCache, SequenceCache
from farspan.cache.sequence import Pruned
from farspan.methods.retain.base import Scorer
from farspan.plan import Plan
from farspan.runtime.layout import ModelLayout


@dataclass
class Pruning:
    """One read's choice of heads in the `full` layers of full attention, by what each of the key-value heads has drawn.

    A layer's heads are chosen once, before its first tokens attend: by what the layers before put out so far, which in
    stream order is for the first chunk, in layerwise order for the whole text.
    """

    scorer: Scorer
    full: list[int]
    drawn: Tensor

    @classmethod
    def of(cls, plan: Plan, layout: ModelLayout) -> Pruning | None:
        """From a plan; None where it leaves every head."""
        scorer = plan.get("score")
        full = [index for index, layer in enumerate(layout.layers) if layer.window is None]
        if not isinstance(scorer, Scorer) or not full:
            return None
        heads = layout.layers[full[0]].heads
        if all(scorer.heads_left(rank, len(full), heads) == heads for rank in range(len(full))):
            return None
        return cls(scorer, full, torch.zeros(heads, dtype=torch.float64))

    def choose(self, cache: SequenceCache, layer: LayerCache) -> None:
        """Prune the layer's heads, if nothing has come to it yet: all that the layer before lacks, and those that put
        out least among the others.
        """
        if cache.seen or layer.extents or len(layer.tail) or layer.window is not None:
            return
        rank, heads = self.full.index(layer.index), self.drawn.numel()
        gone = cache.layers[self.full[rank - 1]].pruned if rank else ()
        left = self.scorer.heads_left(rank, len(self.full), heads)
        ranked = [head for head in self.drawn.argsort(stable=True).tolist() if head not in gone]
        layer.pruned = tuple(sorted((*gone, *ranked[: max(0, heads - left - len(gone))])))
        if layer.pruned and cache.events is not None:
            cache.events.add(Pruned(layer.index, 0, layer.pruned))

    def note(self, cache: SequenceCache, layer: LayerCache, out: Tensor) -> None:
        """A layer put out [T, Hq, Dv] for new tokens, of which none was only lent."""
        if not cache.seen and layer.window is None:
            grouped = out.unflatten(1, (self.drawn.numel(), -1)).transpose(0, 1)
            self.drawn += self.scorer.head_importance(grouped).to(self.drawn)


def silence(layers: Sequence[LayerCache], lengths: Sequence[int], out: Tensor) -> None:
    """Take from out [ΣT, Hq, Dv] what pruned heads put out, row by row of so many tokens each."""
    start = 0
    for layer, length in zip(layers, lengths, strict=True):
        if layer.pruned:
            grouped = out[start : start + length].unflatten(1, (layer.tail.keys.shape[0], -1))
            grouped[:, list(layer.pruned)] = 0
        start += length
