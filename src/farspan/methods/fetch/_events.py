"""Where events begin: at surprises, moved to where similar keys part."""

from __future__ import annotations

import torch
from torch import Tensor


def surprises(surprisal: Tensor, window: int, gamma: float) -> list[int]:
    """surprisal [N] -> entries above mean + gamma · deviation of the `window` ones before; NaN surprises nobody.

    The mean and deviation of fewer than two are not known, so the first two entries never surprise.
    """
    known = surprisal.nan_to_num(0.0).double()
    real = (~surprisal.isnan()).double()
    counts, sums, squares = (_before(x, window) for x in (real, known, known * known))
    mean = sums / counts.clamp_min(1)
    deviation = (squares / counts.clamp_min(1) - mean**2).clamp_min(0).sqrt()
    surprising = (known > mean + gamma * deviation) & (counts >= 2) & (real > 0)
    return surprising.nonzero()[:, 0].tolist()


def _before(x: Tensor, window: int) -> Tensor:
    """x [N] -> [N]: the sum of the `window` elements before each."""
    sums = torch.cat([x.new_zeros(1), x.cumsum(0)])
    at = torch.arange(x.numel())
    return sums[at] - sums[(at - window).clamp_min(0)]


def refined(unit: Tensor, start: int, boundary: int, shortest: int) -> int:
    """unit [h, N, D], keys of length 1 -> where the event that begins at `start` parts best from what follows it: at
    least `shortest` entries on, at `boundary` at the latest.

    Best is the cut of highest modularity in a graph whose nodes are the entries from `start` to half an event beyond
    the boundary, and whose edges are cosine similarities, summed over heads, where positive (EM-LLM, section 3.2).
    """
    end = min(unit.shape[1], boundary + (boundary - start) // 2)
    span = unit[:, start:end]
    graph = (span @ span.transpose(1, 2)).sum(0).clamp_min(0).double()
    values = modularity(graph)
    first, last = shortest, boundary - start
    return start + first + int(values[first : last + 1].argmax())


def modularity(graph: Tensor) -> Tensor:
    """graph [n, n], symmetric -> [n]: modularity of the two sides of a cut before each node (Newman 2004); before the
    first there is one side alone.
    """
    total = graph.sum()
    degrees = graph.sum(1).cumsum(0) / total
    inside = graph.cumsum(0).cumsum(1).diagonal() / total  # edges among the first t + 1 nodes
    left, before = torch.cat([inside.new_zeros(1), inside[:-1]]), torch.cat([degrees.new_zeros(1), degrees[:-1]])
    right = 1 - 2 * before + left  # what is neither from nor to the left side
    return left - before**2 + right - (1 - before) ** 2
