"""GemFilter: tokens that an early layer already points at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d

from farspan.attention.lse import held_pieces
from farspan.errors import PlanError
from farspan.methods.compress._skimming import Skimmed, Skimmer
from farspan.registry import Paper


@dataclass(frozen=True, kw_only=True)
class Gemfilter(Skimmer):
    """Read only the tokens to which the question's last token says most in an early layer.

    Source: Shi et al. 2024, "Discovering the Gems in Early Layers": q·k of the last query, summed over all heads of one
    layer, smoothed over `kernel` neighbours; the best are read in order, as a prompt of their own. The paper takes
    layer 13 of Llama 3.1's 32; the default is as deep in other models.
    """

    paper: ClassVar[Paper | None] = Paper("GemFilter", arxiv="2409.17422", id=26)

    kernel: int = 5

    def check(self) -> None:
        """A kernel has a middle."""
        super().check()
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise PlanError(f"kernel={self.kernel} has no middle; give an odd number")

    def asks(self, layers: int) -> int:
        """-> 13 of 32."""
        return layers * 13 // 32 if self.layer is None else self.layer

    def choose(self, skimmed: Skimmed, budget: int) -> Tensor:
        """-> the best by pooled products; ties go to the older token."""
        scores = avg_pool1d(_products(skimmed)[None], self.kernel, 1, self.kernel // 2, count_include_pad=False)[0]
        return scores.sort(descending=True, stable=True).indices[:budget].sort().values


def _products(skimmed: Skimmed) -> Tensor:
    """-> [tokens] float32: q·k of the last query, summed over all query heads."""
    out = torch.zeros(skimmed.tokens, device=skimmed.queries.device)
    for piece in held_pieces(skimmed.held):
        last = skimmed.queries[:, -1].float().unflatten(0, (skimmed.held.tail.keys.shape[0], -1))[piece.heads]
        at = piece.positions.long() - skimmed.first
        inside = (at >= 0) & (at < skimmed.tokens)
        products = torch.einsum("hgd,hnd->n", last, piece.keys.float())
        out[at[0][inside[0]]] += products[inside[0]]
    return out
