"""What every parallel method promises: pieces that stand somewhere, are held whole, and are repeatable; or that merge,
and lose what the budget says.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from farspan.budget import Budget
from farspan.cache import SequenceCache
from farspan.methods.parallel._merging import Asking, Merging
from farspan.methods.parallel.base import Parallel
from farspan.plan import Plan
from farspan.runtime.apart import Apart, read_apart
from farspan.runtime.hf import Runtime
from farspan.runtime.hf_inspect import prepare_model
from farspan.runtime.merging import Hierarchy, read_merged
from farspan.runtime.reader import Job
from farspan.runtime.step import Row, Step
from farspan.testing.reads import allocated_bytes, need
from farspan.testing.tiny import tiny_model


def check_parallel(method: Parallel, models: list[str]) -> None:
    """Where pieces stand, then reads on tiny models; raises AssertionError."""
    for first, lengths in ((0, [5]), (3, [4, 9, 1]), (7, [1] * 20)):
        _check_standing(method, first, lengths)
    if isinstance(method, Merging):
        _check_choice(method)
        for kind in models:
            _check_merged(method, kind)
        return
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


def _check_choice(method: Merging) -> None:
    who = f"{method.name}.stops"
    for layers, height in ((32, 0), (32, 5), (12, 3), (4, 3)):
        stops = method.stops(layers, height)
        rises = stops == sorted(set(stops)) and stops[0] > 0
        need(len(stops) == height + 1 and rises and stops[-1] == layers, f"{who}({layers}, {height}) is {stops}")
    who, g = f"{method.name}.significance", torch.Generator().manual_seed(3)
    for tokens in (1, 7, 90):
        at = method.asks(tokens)
        need(
            bool((at.diff() > 0).all()) and int(at[-1]) == tokens - 1, f"{method.name}.asks({tokens}) is {at.tolist()}"
        )
        queries, keys = torch.randn(4, at.numel(), 8, generator=g), torch.randn(2, tokens, 8, generator=g)
        asking = Asking(queries, at, keys, torch.arange(tokens) // 2, 8**-0.5)
        given = [each.clone() for each in asking[:4]]
        scores, again = method.significance(asking), method.significance(asking)
        need(all(map(torch.equal, given, asking[:4])), f"{who} changed a tensor it was given")
        need(tuple(scores.shape) == (tokens,), f"{who} returned {tuple(scores.shape)}, not [n] = ({tokens},)")
        need(not bool(scores.isnan().any()), f"{who} returned what is not numbers")
        need(torch.equal(scores, again), f"{who} gave two answers to one question")


def _check_merged(method: Merging, kind: str) -> None:
    """Models with windows of their own are refused when a plan is checked."""
    prepared = prepare_model(tiny_model(kind, layers=4))
    if any(window is not None for window in prepared.layout.windows):
        return
    runtime = Runtime(prepared, prepared.positions(400))
    ids = torch.randint(3, 131, (150,), generator=torch.Generator().manual_seed(1))
    small = replace(method, chunk=60, ends=4, budget=Budget.parse(30))

    def once(method: Merging) -> tuple[SequenceCache, Hierarchy]:
        tree = Hierarchy.of(Job(prepared.layout.empty(), ids, Plan((method,))), 2, method, prepared.layout)
        cache, report = read_merged(runtime, tree)
        need(report.peak_bytes <= report.stated_peak_bytes, f"{where}: {report} is more than was stated")
        return cache, tree

    where = f"{method.name} on {kind}"
    (cache, tree), (again, _) = once(small), once(small)
    need(len(tree.cuts) == 4 and cache.seen == 150, f"{where}: {cache.seen} of 150 tokens count as seen")
    need(cache.nbytes == allocated_bytes(cache), f"{where}: bytes reported are not bytes allocated")
    for layer, twin in zip(cache.layers, again.layers, strict=True):
        its, held = layer.positions(0).tolist(), layer.extents[0].counts
        need(set(held) == {30}, f"{where}: layer {layer.index} holds {held} of a budget of 30")
        need({*range(6), *range(146, 150)} <= set(its), f"{where}: layer {layer.index} lost an end: {its}")
        same = all(
            torch.equal(a, b) for a, b in zip(layer.extents[0].entries(), twin.extents[0].entries(), strict=True)
        )
        need(same, f"{where}: two reads hold different things")
    with torch.inference_mode():
        whole, _ = once(replace(method, chunk=200, ends=4, budget=None))
        logits = [runtime.logits(runtime.forward(ids[:9], Step([Row(each, 9)]))) for each in (cache, whole)]
        plain = tiny_model(kind, layers=4)(torch.cat([ids, ids[:9]])[None]).logits[0, -9:]
    need(bool(logits[0].isfinite().all()), f"{where}: what follows is not numbers")
    off = float((logits[1] - plain).abs().max() / plain.abs().max().clamp(min=1))
    need(off <= 1e-4, f"{where}: a text within one piece is read otherwise than plainly: logits are off by {off:.2g}")
