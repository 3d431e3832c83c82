"""What methods that read under patterns promise, one chunk at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from farspan.attention import Pattern
from farspan.cache import LayerCache
from farspan.methods.prefill.base import Chunk, Prefill
from farspan.testing.made_up import profiled
from farspan.testing.reads import need

LAYER, LAYERS = 5, 6
CHUNKS = ((2, 2, 0, 40, 40), (1, 3, 90, 33, 200), (3, 1, 300, 1, 301))


def check_patterns(method: Prefill) -> None:
    """A pattern or None, the same for the same chunk, for one head or each, and nothing changed that was lent."""
    for heads, group, start, tokens, total in CHUNKS:
        one, same = (_chunk(heads, group, start, tokens, total) for _ in range(2))
        with profiled(method, {LAYER: heads}) as fitting:
            _check(fitting, one, same)


def _chunk(heads: int, group: int, start: int, tokens: int, total: int) -> Chunk:
    g = torch.Generator().manual_seed(start + heads)
    layer = LayerCache(LAYER)
    keys, values = (torch.randn(heads, start + tokens, 8, generator=g) for _ in range(2))
    layer.tail.append(keys, values, 0)
    queries = torch.randn(heads * group, tokens, 8, generator=g)
    return Chunk(
        layer=LAYER,
        layers=LAYERS,
        heads=heads,
        start=start,
        total=total,
        queries=queries,
        scaling=0.3,
        held=layer,
        began=start,
    )


def _check(method: Prefill, chunk: Chunk, same: Chunk) -> None:
    who = f"{method.name}.pattern"
    lent = [chunk.queries, chunk.held.tail.keys, chunk.held.tail.values]
    before = [tensor.clone() for tensor in lent]
    pattern, again = method.pattern(chunk), method.pattern(same)
    need(all(map(torch.equal, lent, before)), f"{who} changed a tensor it was given")
    for found in (pattern, again):
        known = found is None or isinstance(found, Pattern)
        need(known, f"{who} returned a {type(found).__name__}, neither a Pattern nor None")
    count = chunk.heads if pattern is None else len(pattern.heads)
    need(count in (1, chunk.heads), f"{who} says what {count} heads see, of {chunk.heads}")
    need(_same(chunk, pattern, again), f"{who} gave two answers to one chunk")


def _same(chunk: Chunk, one: Pattern | None, two: Pattern | None) -> bool:
    if one is None or two is None:
        return one is two
    return one.dense_from == two.dense_from and torch.equal(_seen(chunk, one), _seen(chunk, two))


def _seen(chunk: Chunk, pattern: Pattern) -> Tensor:
    """-> [H, T, N] bool."""
    at, keys = torch.arange(chunk.start, chunk.stop), torch.arange(chunk.stop)
    return torch.stack([pattern.sight(head).sees(at, keys) for head in range(chunk.heads)])
