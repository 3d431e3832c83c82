"""The attention that queries still to come are expected to pay, from what queries were like so far."""

from __future__ import annotations

import torch
from torch import Tensor

from farspan.signals.observation import Observation

BLOCK = 4096  # entries at a time


def expected_attention(observation: Observation, ahead: int, sinks: int) -> Tensor:
    """-> [H, N] float32: the share of attention that each entry may expect from the next `ahead` positions, averaged
    over the query heads of a group; the shares of a head sum to 1.

    For a query q ~ N(μ, Σ), E[exp(s q·k)] = exp(s μ·k + s² kᵀΣk / 2). Queries of the first `sinks` positions are left
    out of the statistics where there are others.

    Source: Expected Attention (Devoto et al. 2025), equations 5 to 8.
    """
    key = ("expected_attention", ahead, sinks)
    return observation.once(key, lambda: _expected_attention(observation, ahead, sinks))


def _expected_attention(o: Observation, ahead: int, sinks: int) -> Tensor:
    mean, covariance = query_statistics(o, sinks)
    if o.rotations is not None:
        turn = o.rotations.mean_rotation(o.seen, o.seen + ahead - 1, o.layer)
        mean, covariance = mean @ turn.T, turn @ covariance @ turn.T
    mean, covariance = (x.unflatten(0, (o.heads, -1)) for x in (mean, covariance))
    logits = []
    for keys in o.keys.split(BLOCK, dim=1):
        wide = keys.float()
        linear = torch.einsum("hgd,hnd->hgn", mean, wide)
        square = torch.einsum("hgde,hnd,hne->hgn", covariance, wide, wide)
        logits.append(o.scaling * linear + o.scaling**2 / 2 * square)
    return torch.cat(logits, -1).softmax(-1).mean(1)


def query_statistics(o: Observation, sinks: int) -> tuple[Tensor, Tensor]:
    """-> mean [Hq, D] and covariance [Hq, D, D] in float32 of the queries before rotation."""
    queries = o.queries.float()
    if o.rotations is not None:
        at = o.query_positions.long()
        queries = o.rotations.place(queries, at, torch.zeros_like(at), o.layer)
    later = o.query_positions >= sinks
    queries = queries[:, later] if bool(later.any()) else queries
    mean = queries.mean(1)
    centred = queries - mean[:, None]
    return mean, torch.einsum("hwd,hwe->hde", centred, centred) / queries.shape[1]
