"""What compressors that skim promise: tokens within the budget, in order, the same each time, and nothing changed."""

from __future__ import annotations

import torch

from farspan.cache import LayerCache
from farspan.methods.compress._skimming import Skimmed, Skimmer
from farspan.registry import Method
from farspan.testing.reads import need


def check_skimmer(skimmer: Method) -> None:
    """Raise AssertionError unless it keeps its contract."""
    assert isinstance(skimmer, Skimmer)
    who = f"{skimmer.name}.choose"
    for heads, group, tokens, behind in ((2, 2, 90, 6), (1, 3, 40, 0), (3, 1, 200, 70)):
        skimmed = _skimmed(heads, group, tokens, behind, skimmer.observes())
        tail = skimmed.held.tail
        before = [t.clone() for t in (skimmed.queries, tail.keys, tail.values)]
        for budget in (1, 7, tokens - 1):
            chosen, again = (skimmer.choose(skimmed, budget) for _ in range(2))
            need(torch.equal(chosen, again), f"{who} gave two answers to one question")
            need(0 < chosen.numel() <= budget, f"{who} chose {chosen.numel()} tokens for a budget of {budget}")
            at = chosen.tolist()
            need(at == sorted(set(at)) and at[0] >= 0 and at[-1] < tokens, f"{who} chose {at} of {tokens} tokens")
        same = all(map(torch.equal, before, (skimmed.queries, tail.keys, tail.values)))
        need(same, f"{who} changed a tensor it was given")


def _skimmed(heads: int, group: int, tokens: int, behind: int, observes: int) -> Skimmed:
    """A text of `tokens` tokens behind a prefix of two, and a question of `behind` tokens behind it."""
    g, first = torch.Generator().manual_seed(tokens), 2
    held, seen = LayerCache(1), 2 + tokens + behind
    held.tail.append(torch.randn(heads, seen, 8, generator=g), torch.randn(heads, seen, 8, generator=g), 0)
    wanted = min(observes, behind or tokens)
    return Skimmed(
        queries=torch.randn(heads * group, wanted, 8, generator=g),
        positions=torch.arange(seen - wanted, seen, dtype=torch.int32),
        scaling=0.3,
        held=held,
        first=first,
        tokens=tokens,
    )
