"""The definition, short enough to check by eye; what every faster route is tested against."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from farspan.attention.scaling import scored


def attend_piece(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    scaling: float,
    visible: Tensor | None,
    log_weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """softmax(scaling · q kᵀ) v and the log-sum-exp it was normalised by; `log_weights` [H, N] raise scores.

    query [H, G, T, D], keys [H, N, D], values [H, N, Dv], visible [T, N] or [H, T, N] bool or None for all ->
    out [H, G, T, Dv] and lse [H, G, T], both float32. A query that sees nothing gets zeros and -inf.
    """
    scores = scored(torch.einsum("hgtd,hnd->hgtn", query.float(), keys.float()), scaling)
    if log_weights is not None:
        scores = scores + log_weights.float()[:, None, None]
    if visible is not None:
        mask = visible[None, None] if visible.ndim == 2 else visible[:, None]
        scores = scores.masked_fill(~mask, -math.inf)
    lse = scores.logsumexp(-1)
    weights = (scores - lse.masked_fill(lse == -math.inf, 0.0)[..., None]).exp()
    return torch.einsum("hgtn,hnd->hgtd", weights, values.float()), lse
