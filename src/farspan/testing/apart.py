"""What every parallel method promises: pieces that stand somewhere, are held whole, and are repeatable."""

from __future__ import annotations

import torch

from farspan.cache import SequenceCache
from farspan.methods.parallel.base import Parallel
from farspan.plan import Plan
from farspan.runtime.apart import Apart, read_apart
from farspan.runtime.hf import Runtime
from farspan.runtime.hf_inspect import prepare_model
from farspan.runtime.reader import Job
from farspan.runtime.step import Row, Step
from farspan.testing.reads import allocated_bytes, need
from farspan.testing.tiny import tiny_model


def check_parallel(method: Parallel, models: list[str]) -> None:
    """Where pieces stand, then reads on tiny models; raises AssertionError."""
    for first, lengths in ((0, [5]), (3, [4, 9, 1]), (7, [1] * 20)):
        _check_standing(method, first, lengths)
    for kind in models:
        _check_read(method, kind)


def _check_standing(method: Parallel, first: int, lengths: list[int]) -> None:
    who = f"{method.name}.stand({first}, {lengths})"
    positions, following = method.stand(first, list(lengths))
    need(len(positions) == len(lengths), f"{who} placed {len(positions)} pieces")
    need(positions[0] == first and min(positions) >= first, f"{who} leaves a gap or overlaps the head: {positions}")
    end = max(at + length for at, length in zip(positions, lengths, strict=True))
    need(following >= end, f"{who} lets the next token stand at {following}, within a piece that ends at {end}")
    ranges = tuple((10 * i, 10 * i + length) for i, length in enumerate(lengths))
    need(method.pieces(ranges).ranges == ranges, f"{method.name}.pieces changed which tokens are whose")


def _check_read(method: Parallel, kind: str) -> None:
    prepared = prepare_model(tiny_model(kind))
    ids = torch.randint(3, 131, (150,), generator=torch.Generator().manual_seed(1))

    def once() -> tuple[SequenceCache, Apart]:
        job = Job(prepared.layout.empty(), ids, Plan((method,)))
        apart = Apart.of(job, 2, [2, 60, 61], method)
        return read_apart(runtime, apart)[0], apart

    runtime = Runtime(prepared, prepared.positions(400))
    (cache, apart), (again, _) = once(), once()
    where = f"{method.name} on {kind}"
    need(
        cache.seen == 150 and torch.equal(cache.ids(), ids.int()), f"{where}: {cache.seen} of 150 tokens count as seen"
    )
    need(
        cache.next_position == apart.standing.next_position, f"{where}: the next token stands at {cache.next_position}"
    )
    need(cache.nbytes == allocated_bytes(cache), f"{where}: bytes reported are not bytes allocated")
    for layer, twin in zip(cache.layers, again.layers, strict=True):
        wanted = list(range(150))[-layer.window + 1 :] if layer.window else list(range(150))
        for head in range(2):
            need(
                layer.positions(head).tolist() == wanted, f"{where}: layer {layer.index} does not hold every token once"
            )
        pairs = zip(layer.extents, twin.extents, strict=True)
        same = all(torch.equal(a.block.unpack(0, 4)[0], b.block.unpack(0, 4)[0]) for a, b in pairs)
        need(same, f"{where}: two reads hold different things")
    with torch.inference_mode():
        logits = runtime.logits(runtime.forward(ids[:9], Step([Row(cache, 9)])))
    need(bool(logits.isfinite().all()), f"{where}: what follows is not numbers")
