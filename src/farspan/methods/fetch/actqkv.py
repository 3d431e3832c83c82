"""ActQKV: unusual tokens ask, and layers share the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from farspan.methods.fetch._blocks import jointly, top_pages
from farspan.methods.fetch.base import Asked, Candidates, Selection
from farspan.methods.fetch.infllm import Infllm as _Blocks
from farspan.registry import Paper


@dataclass(frozen=True, kw_only=True)
class Actqkv(_Blocks):
    """Read InfLLM's blocks by the queries of unusual tokens, and more of them in layers that cannot tell blocks apart.

    Each query counts by its activation bias: how far it lies from the mean of the queries before it, channel by channel
    in deviations, squared. Blocks are ranked by cosine similarity. While answering token by token, a layer's share of
    all layers' budgets follows the entropy of its block scores against that of the layers yet to come (running means
    of this turn; `k` each until all are known), between one block and twice `k`: so `k` is the mean over layers.

    Source: Xiao et al. 2025, "Activation-aware Probe-Query", sections 4.1 and 4.2, and the authors' code, from which
    the blocks, cosine ranking and the bounds come; it warms up for 100 tokens, this for one.
    """

    paper: ClassVar[Paper | None] = Paper("ActQKV", arxiv="2502.13542", id=117)

    def select(self, asked: Asked, held: Sequence[Candidates], k: int) -> list[Selection]:
        """The blocks most similar to the probe query, as many as this layer's share allows."""
        probe = normalize(_probe(asked), dim=-1)
        means = [normalize(each.index["means"].float(), dim=-1) for each in held]
        scores = jointly([(its @ probe[..., None])[..., 0] for its in means], held)
        if asked.queries.shape[2] == 1 and not asked.reading:
            entropy = _entropy(torch.cat(list(scores), -1))
            k = _share(asked.turn, (asked.layer, asked.first_head), entropy, k, self.block)
        return top_pages(scores, held, self.block, k)


def _probe(asked: Asked) -> Tensor:
    """-> [h, D]: queries [h, G, t, D] weighted by their activation bias, summed over the group."""
    queries = asked.queries.float()
    mean, variance, count = asked.memory.get("queries", (queries.mean(2, keepdim=True), None, 0))
    now, many = queries.var(2, keepdim=True, unbiased=False), queries.shape[2]
    shift = queries.mean(2, keepdim=True) - mean
    total = count + many
    variance = now if variance is None else (variance * count + now * many + shift**2 * count * many / total) / total
    spread = variance + variance.mean(-1, keepdim=True) / 100 + 1e-12
    bias = ((queries - mean) ** 2 / spread).mean((0, 1, 3))
    asked.memory["queries"] = (mean + shift * many / total, variance, total)
    weights = bias / bias.sum() if float(bias.sum()) > 0 else torch.full_like(bias, 1 / many)
    return (queries * weights[:, None]).sum((1, 2))


def _entropy(scores: Tensor) -> float:
    """scores [h, B] -> the entropy of their softmax as a share of the largest there could be."""
    scores = scores[:, torch.isfinite(scores[0])]
    if scores.shape[1] < 2:
        return 1.0
    shares = scores.softmax(-1)
    entropy = -(shares * shares.clamp_min(1e-12).log()).sum(-1).mean()
    return float(entropy / torch.log(torch.tensor(float(scores.shape[1]))))


def _share(turn: dict[str, Any], place: tuple[int, int], entropy: float, k: int, block: int) -> int:
    """What this layer may fetch of what all layers together have left for this token."""
    known: dict[tuple[int, int], tuple[float, int]] = turn.setdefault("entropy", {})
    first = not any(other < place for other in known)
    complete = place in known  # this is not the first token: all layers have been met
    mean, count = known.get(place, (0.0, 0))
    known[place] = ((mean * count + entropy) / (count + 1), count + 1)
    if first:
        turn["left"] = k * len(known)
    if not complete:
        return k
    coming = sum(its for other, (its, _) in known.items() if other >= place)
    wanted = turn["left"] * known[place][0] / coming if coming else k
    share = max(block, min(2 * k, round(wanted)))
    turn["left"] = max(0, turn["left"] - share)
    return share
