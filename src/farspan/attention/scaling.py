"""From products of queries and keys to scores: a factor, and what some models do beyond it."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor


class Scaling(float):
    """What products of queries and keys are multiplied with: a number, which two more things may come with.

    `softcap` bounds scores, cap·tanh(score / cap) (Gemma 2). `sinks` [Hq] float32 are learned logits that take weight
    from every query and have no value (GPT-OSS): they enter a softmax once, whatever it is merged from.
    """

    softcap: float | None
    sinks: Tensor | None

    def __new__(cls, factor: float, *, softcap: float | None = None, sinks: Tensor | None = None) -> Self:
        """A factor with what comes with it."""
        made = super().__new__(cls, factor)
        made.softcap, made.sinks = softcap or None, None if sinks is None else sinks.detach().float()
        return made


def softcap_of(scaling: float) -> float | None:
    """What bounds scores, if anything does."""
    return scaling.softcap if isinstance(scaling, Scaling) else None


def sinks_of(scaling: float) -> Tensor | None:
    """[Hq] learned logits without values, if there are any."""
    return scaling.sinks if isinstance(scaling, Scaling) else None


def of_heads(scaling: float, heads: slice, total: int) -> float:
    """The scaling of some of `total` key-value heads."""
    sinks = sinks_of(scaling)
    if sinks is None:
        return scaling
    return Scaling(scaling, softcap=softcap_of(scaling), sinks=sinks.unflatten(0, (total, -1))[heads].flatten())


def scored(products: Tensor, scaling: float) -> Tensor:
    """products q·k -> scores, in the place of the products."""
    scores = products.mul_(float(scaling))
    cap = softcap_of(scaling)
    return scores if cap is None else scores.div_(cap).tanh_().mul_(cap)


def at_temperature(scaling: float, temperature: float) -> float:
    """The scaling of scores that are divided by a temperature, capped as before; sinks are left to what it is merged
    with.
    """
    cap = softcap_of(scaling)
    return Scaling(float(scaling) / temperature, softcap=None if cap is None else cap / temperature)


def sunk(out: Tensor, lse: Tensor, scaling: float, heads: slice | None = None) -> Tensor:
    """out [Hk, G, T, Dv] of whole softmaxes whose log-sum-exp is lse [Hk, G, T] -> with the weight that sinks take;
    `heads` says which key-value heads these are, where they are not all.
    """
    sinks = sinks_of(scaling)
    if sinks is None:
        return out
    its = sinks.to(lse.device).unflatten(0, (-1, lse.shape[1]))
    its = its if heads is None else its[heads]
    return out * torch.sigmoid(lse - its[:, :, None])[..., None].to(out.dtype)


def with_sinks(lse: Tensor, scaling: float) -> Tensor:
    """lse [Hq, T] -> what queries' weights are normalised by, sinks included."""
    sinks = sinks_of(scaling)
    return lse if sinks is None else torch.logaddexp(lse, sinks.to(lse.device)[:, None])


__all__ = ["Scaling", "at_temperature", "of_heads", "scored", "sinks_of", "softcap_of", "sunk", "with_sinks"]
