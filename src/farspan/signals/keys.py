"""What keys say by themselves, before anything asks: their length, and how like the others they are."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import normalize

from farspan.signals.observation import Observation

BLOCK = 4096  # entries at a time: keys are held in the model's dtype, and no float32 copy of them all is made


def key_norms(observation: Observation) -> Tensor:
    """-> [H, N] float32: the L2 norm of every key."""
    return observation.once("key_norms", lambda: torch.cat([b.norm(dim=-1) for b in _blocks(observation.keys)], 1))


def key_likeness(observation: Observation) -> Tensor:
    """-> [H, N] float32 in [-1, 1]: cosine between every key and its head's anchor, the mean of its normalised keys.

    Source: KeyDiff (Park et al. 2025); the anchor costs one pass over the keys, all pairs would cost N.
    """
    return observation.once("key_likeness", lambda: likeness(observation.keys))


def likeness(keys: Tensor) -> Tensor:
    """keys [H, N, D] -> [H, N] float32: see `key_likeness`."""
    anchor = torch.zeros(keys.shape[0], 1, keys.shape[-1], device=keys.device)
    for block in _blocks(keys):
        anchor += normalize(block, dim=-1).sum(1, keepdim=True)
    anchor = normalize(anchor, dim=-1)
    return torch.cat([(normalize(block, dim=-1) * anchor).sum(-1) for block in _blocks(keys)], 1)


def _blocks(keys: Tensor) -> Iterator[Tensor]:
    """[H, n, D] float32, one after the other."""
    return (block.float() for block in keys.split(BLOCK, dim=1))
