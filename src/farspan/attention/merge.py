"""Parts of one softmax, attended apart and merged exactly by their log-sum-exp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from farspan.attention.scaling import sunk

Index = slice | Tensor


class Merger:
    """Accumulates out [Hk, G, T, Dv] and lse [Hk, G, T] in float32.

    softmax over a union of sets is the average of the softmaxes over each, weighted by exp(lse): so any cut of the
    keys into parts gives the same result (flash decoding; Dao et al. 2023).
    """

    def __init__(self, heads: int, group: int, tokens: int, size: int, device: torch.device) -> None:
        self.out = torch.zeros(heads, group, tokens, size, device=device)
        self.lse = torch.full((heads, group, tokens), -torch.inf, device=device)

    @classmethod
    def of(cls, parts: Sequence[tuple[Tensor, Tensor, slice]]) -> Self:
        """From what all heads attended for the queries at runs of tokens, one after the other and each once.

        A part that stands alone keeps its dtype until another is added: most reads have no other.
        """
        made = cls.__new__(cls)
        outs, lses, _ = zip(*parts, strict=True)
        made.out, made.lse = (x[0] if len(x) == 1 else torch.cat(x, dim=2) for x in (outs, lses))
        return made

    def add(self, out: Tensor, lse: Tensor, heads: slice, tokens: Index) -> None:
        """Merge a part that was attended by `heads` for the queries at `tokens`."""
        self.out = self.out.float()
        old_out, old_lse = self.out[heads][:, :, tokens], self.lse[heads][:, :, tokens]
        share = (lse - old_lse).sigmoid_().nan_to_num_(0.0)  # of the new part; none where neither sees anything
        both = torch.logaddexp(old_lse, lse)
        merged = old_out.lerp_(out.float(), share[..., None])
        if isinstance(tokens, Tensor):  # an index gives copies
            self.out[heads, :, tokens] = merged
        self.lse[heads, :, tokens] = both

    def finished(self, scaling: float, dtype: torch.dtype) -> Tensor:
        """-> [T, Hq, Dv] in `dtype`: all parts are there, and what sinks take is taken."""
        out = sunk(self.out, self.lse, scaling).flatten(0, 1).transpose(0, 1)
        return out.to(dtype, memory_format=torch.contiguous_format)
