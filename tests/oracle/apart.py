"""The oracle's own idea of pieces read apart: their keys turned in float64, and how later queries see them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from farspan.cache.pieces import Composed, Pieces


class Final(NamedTuple):
    """What one layer holds of a sequence when it is over: keys [H, N, D] and values [H, N, Dv] of all tokens, and
    [H, N] bool which of them each head still has.
    """

    keys: Tensor
    values: Tensor
    held: Tensor


def stood_together(twin: PreTrainedModel, event: Composed, parts: list[dict[int, Final]]) -> dict[int, Final]:
    """-> by layer, what the parts hold once they stand where the event says."""
    return {layer: _one_layer(twin, event, [part[layer] for part in parts], layer) for layer in parts[0]}


def _one_layer(twin: PreTrainedModel, event: Composed, parts: list[Final], layer: int) -> Final:
    columns = []
    at = 0
    for its, final in zip(event.parts, parts, strict=True):
        assert its.at == at, "the parts leave no token out and take none twice"
        by = its.at - its.start + its.lag - event.lag if _slides(twin, layer) else its.move
        columns.append((turned(twin, final.keys, by, layer), final.values, final.held))
        columns[-1] = tuple(column[:, its.start :] for column in columns[-1])
        at += columns[-1][0].shape[1]
    assert at == event.time
    return Final(*(torch.cat(column, 1) for column in zip(*columns, strict=True)))


def _slides(twin: PreTrainedModel, layer: int) -> bool:
    kinds = getattr(twin.config, "layer_types", None)
    if kinds is not None:
        return kinds[layer] == "sliding_attention"
    return getattr(twin.config, "sliding_window", None) is not None


def turned(twin: PreTrainedModel, keys: Tensor, by: int, layer: int) -> Tensor:
    """keys [H, N, D] float64 as they would be `by` positions further on: pairs (i, i + d/2) of the first d dimensions
    turn by `by` times their frequency.
    """
    if not by:
        return keys
    rotary = next(m for m in twin.modules() if type(m).__name__.endswith("RotaryEmbedding"))
    frequencies = getattr(rotary, "inv_freq", None)
    if frequencies is None:
        frequencies = getattr(rotary, f"{twin.config.layer_types[layer]}_inv_freq")
    angles = by * frequencies.double()
    half = angles.numel()
    one, two, rest = keys[..., :half], keys[..., half : 2 * half], keys[..., 2 * half :]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([one * cos - two * sin, two * cos + one * sin, rest], -1)


def weighed(scores: Tensor, pieces: Pieces) -> Tensor:
    """scores [H, G, T, N] of queries that see pieces (-inf where they do not) -> what to take the softmax of."""
    apart = [scores[..., a:b] / pieces.temperature for a, b in pieces.ranges]
    amounts = torch.stack([part.logsumexp(-1) for part in apart], -1)
    if 0 < pieces.top < len(apart):
        rest = scores.clone()
        for a, b in pieces.ranges:
            rest[..., a:b] = -math.inf
        every = torch.cat([amounts, rest.logsumexp(-1, keepdim=True)], -1).logsumexp(-1, keepdim=True)
        best = (amounts - every).exp().sum((0, 1)).topk(pieces.top, -1).indices
        seen = torch.zeros_like(amounts[0, 0], dtype=torch.bool).scatter(-1, best, True).expand_as(amounts)
        amounts = amounts.masked_fill(~seen, -math.inf)
        apart = [part.masked_fill(~seen[..., i, None], -math.inf) for i, part in enumerate(apart)]
    together = amounts.logsumexp(-1, keepdim=True)
    power = pieces.scale * pieces.temperature
    out = scores.clone()
    for (a, b), part in zip(pieces.ranges, apart, strict=True):
        none = part == -math.inf  # also where a head has nothing of what all heads chose: then nothing of pieces at all
        out[..., a:b] = (part - together + power * together).masked_fill(none, -math.inf)
    return out
