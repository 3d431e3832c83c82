"""Parts of one softmax, attended apart and merged exactly by their log-sum-exp."""

from __future__ import annotations

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

    def add(self, out: Tensor, lse: Tensor, heads: slice, tokens: Index) -> None:
        """Merge a part that was attended by `heads` for the queries at `tokens`."""
        old_out, old_lse = self.out[heads][:, :, tokens], self.lse[heads][:, :, tokens]
        both = torch.logaddexp(old_lse, lse)
        anchor = both.masked_fill(both == -torch.inf, 0.0)  # where neither part sees anything
        mine, theirs = (old_lse - anchor).exp_()[..., None], (lse - anchor).exp_()[..., None]
        self.out[heads, :, tokens] = old_out * mine + out * theirs
        self.lse[heads, :, tokens] = both

    def finished(self, scaling: float, dtype: torch.dtype) -> Tensor:
        """-> [T, Hq, Dv] in `dtype`: all parts are there, and what sinks take is taken."""
        return sunk(self.out, self.lse, scaling).flatten(0, 1).transpose(0, 1).to(dtype)
