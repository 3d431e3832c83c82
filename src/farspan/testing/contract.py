"""What every method promises, checked one sentence at a time."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from farspan.cache import block_from_tensors
from farspan.errors import PlanDoesNotApply, UnknownName
from farspan.methods.compress._skimming import Skimmer
from farspan.methods.compress.base import Compressor
from farspan.methods.fetch.base import Fetch
from farspan.methods.parallel.base import Parallel
from farspan.methods.positions.base import Positions
from farspan.methods.prefill.base import Prefill
from farspan.methods.retain.base import Allocator, Entries, Folder, Scorer
from farspan.methods.store.base import Store
from farspan.plan import Plan
from farspan.registry import Method, find, registered
from farspan.runtime.hf_inspect import prepare_model
from farspan.signals import Observation
from farspan.testing.apart import check_parallel
from farspan.testing.fetching import FetchReads, check_selecting
from farspan.testing.made_up import example, full_heads, profiled
from farspan.testing.patterns import check_patterns
from farspan.testing.placing import check_stretch
from farspan.testing.reads import Reads, allocated_bytes, need
from farspan.testing.skimming import check_skimmer
from farspan.testing.tiny import tiny_model
from farspan.text.document import Segment

FAMILIES = ("retain", "store", "compress", "order", "positions", "prefill", "fetch", "parallel")


def check_method(method: str | type[Method] | Method, *, models: Sequence[str] = ("llama", "gemma3")) -> None:
    """Raise AssertionError, with a sentence that says what was broken, unless the method keeps its contract.

    `method` is a name, a class (which need not be registered), or an instance with the parameters to test. Checked
    for every method: a frozen keyword-only dataclass with a docstring, whose plans round-trip as string and JSON.
    For those that retain: the budget honoured on average over heads in both orders, nothing mutated, and the
    unprepared model's logits at full budget. For stores: precision as declared, bytes as announced. For
    compressors: budget and provenance. For positions: usable frequencies, and those of training at factor 1. For
    patterns of reading: the same for the same chunk, and the unprepared model's logits where they show everything.
    For those that fetch: candidates alone, no more than the budget, and full attention where the budget is everything.
    Then real reads, on tiny models of the kinds given: repeatable, the same in any batch, and holding just the bytes
    they report.
    """
    cls = find(method) if isinstance(method, str) else method if isinstance(method, type) else type(method)
    _check_class(cls)
    need(cls.family in FAMILIES, f"the family {cls.family!r} has no contract test yet; families: {', '.join(FAMILIES)}")
    given = method if isinstance(method, Method) else example(cls)
    if isinstance(given, Store) and len(given.candidates()) > 1:  # what it chooses is checked as what it is
        for candidate in filter(None, given.candidates()):
            check_method(candidate, models=models)
        return
    with registered(*(() if _known(cls) else (cls,))):
        plan = _plan_of(given)
        _check_round_trip(plan)
        if isinstance(given, Skimmer):
            check_skimmer(plan.methods[0])
            return
        if isinstance(given, Parallel):
            check_parallel(given, list(models))
            return
        if isinstance(given, Compressor):
            _check_compressor(given)
            return
        if isinstance(given, Scorer):
            _check_scorer(given)
        elif isinstance(given, Allocator):
            _check_allocator(given)
        elif isinstance(given, Folder):
            _check_folder(given)
        elif isinstance(given, Store):
            _check_store(given)
        elif isinstance(given, Positions):
            check_stretch(given)
        elif isinstance(given, Prefill):
            check_patterns(given)
        elif isinstance(fetch := plan.get("fetch"), Fetch):
            check_selecting(fetch)
            for kind in models:
                FetchReads(kind, fetch).check()
        suited = 0
        for kind in models:
            with profiled(given, full_heads(kind)) as fitting:
                if _suits(fitting, kind):
                    Reads(kind, _plan_of(fitting)).check()
                    suited += 1
        need(bool(suited), f"{cls.name} applies to none of these models: {', '.join(models)}")


def _suits(given: Method, kind: str) -> bool:
    """False where a model has no layers or heads that the method could act on, and it says so."""
    try:
        prepare_model(tiny_model(kind)).layout.check(_plan_of(given))
    except PlanDoesNotApply:
        return False
    return True


def _known(cls: type[Method]) -> bool:
    try:
        return find(cls.name) is cls
    except UnknownName:
        return False


def _check_class(cls: type[Method]) -> None:
    who = cls.__qualname__
    need(issubclass(cls, Method), f"{who} does not derive from farspan.registry.Method")
    params = cls.__dict__.get("__dataclass_params__")
    need(params is not None and params.frozen, f"{who} is not decorated with @dataclass(frozen=True, kw_only=True)")
    need(all(f.kw_only for f in dataclasses.fields(cls)), f"{who} has parameters that are not keyword-only")
    need(bool(cls.name and cls.family and cls.slot), f"{who} lacks a name, a family or a slot")
    doc = inspect.cleandoc(cls.__dict__.get("__doc__") or "")
    automatic = doc.startswith(cls.__name__ + "(")
    need(bool(doc) and not automatic and cls.summary == doc.splitlines()[0], f"{who} has no docstring of its own")


def _plan_of(method: Method, budget: int = 100) -> Plan:
    """A plan of this method alone, with a budget where it takes one and has none."""
    takes = any(field.name == "budget" for field in dataclasses.fields(method))
    repeats = isinstance(method, Compressor) and method.passes > 1  # all of a text, so no budget
    if takes and not repeats and getattr(method, "budget", None) is None:
        least = method.least if isinstance(method, Fetch) else 1
        method = dataclasses.replace(method, **{"budget": max(budget, least)})
    return Plan((method,))


def _check_round_trip(plan: Plan) -> None:
    text, data = str(plan), json.dumps(plan.to_json())
    need(Plan.parse(text) == plan, f"the plan {text!r} reads back as {Plan.parse(text)}")
    need(Plan.from_json(data) == plan, f"the plan {text!r} does not survive its JSON form")
    need(Plan.from_json(data).hash == plan.hash, f"the plan {text!r} hashes differently after its JSON form")


def _observation(heads: int, group: int, entries: int, window: int, size: int = 8) -> Observation:
    """Random keys under the last `window` queries of a text whose first tokens were partly dropped."""
    g = torch.Generator().manual_seed(heads * 1000 + entries)
    seen = entries + 20
    positions = torch.stack(
        [torch.randperm(20 + entries - window, generator=g)[: entries - window].sort().values for _ in range(heads)]
    )
    newest = torch.arange(seen - window, seen)
    return Observation(
        layer=0,
        keys=torch.randn(heads, entries, size, generator=g),
        values=torch.randn(heads, entries, size, generator=g),
        positions=torch.cat([positions, newest.expand(heads, -1)], 1).to(torch.int32),
        queries=torch.randn(heads * group, window, size, generator=g),
        query_positions=newest.to(torch.int32),
        scaling=size**-0.5,
        token_ids=torch.randint(3, 100, (seen,), generator=g, dtype=torch.int32),
        seen=seen,
        surprisal=torch.rand(window, generator=g),
        generator=torch.Generator().manual_seed(7),
    )


def _unchanged(what: str, watched: Sequence[Tensor], act: Callable[[], Any]) -> Any:
    before = [tensor.clone() for tensor in watched]
    result = act()
    same = all(torch.equal(a, b) for a, b in zip(watched, before, strict=True))
    need(same, f"{what} changed a tensor it was given")
    return result


def _given(o: Observation) -> list[Tensor]:
    return [o.keys, o.values, o.positions, o.queries, o.query_positions, o.token_ids]


def _check_scorer(scorer: Scorer) -> None:
    who = f"{scorer.name}.score"
    sinks, recent = scorer.protects()
    need(sinks >= 0 and recent >= 0 and scorer.floor >= 1, f"{scorer.name} would let a head be emptied: its floor is 0")
    window = max(scorer.observes(), 1)
    for heads, group in ((1, 1), (2, 2), (3, 1), (1, 4)):
        o = _accumulated(scorer, _observation(heads, group, window + 25, window))
        scores = _unchanged(who, _given(o), lambda o=o: scorer.score(o))
        shape = (heads, o.entries)
        need(tuple(scores.shape) == shape, f"{who} returned {tuple(scores.shape)}, not [H, N] = {shape} (G = {group})")
        need(scores.is_floating_point() and not bool(scores.isnan().any()), f"{who} returned what is not numbers")
        again = scorer.score(_accumulated(scorer, _observation(heads, group, window + 25, window)))
        need(torch.equal(scores, again), f"{who} gave two answers to one observation")


def _accumulated(scorer: Scorer, o: Observation) -> Observation:
    """The observation with the state that the scorer accumulates over it, from nothing."""
    if not scorer.accumulates:
        return o
    who, shape = f"{scorer.name}.accumulate", tuple(o.positions.shape)
    o = dataclasses.replace(o, state={name: torch.zeros(shape) for name in scorer.accumulates})
    state = _unchanged(who, [*_given(o), *o.state.values()], lambda: scorer.accumulate(o))
    need(set(state) == set(scorer.accumulates), f"{who} returned {sorted(state)}, not {list(scorer.accumulates)}")
    for name, values in state.items():
        need(tuple(values.shape) == shape, f"{who} returned {name!r} as {tuple(values.shape)}, not [H, N] = {shape}")
        need(not bool(values.isnan().any()), f"{who} returned what is not numbers as {name!r}")
    return dataclasses.replace(o, state=state, memo={})


def _check_allocator(allocator: Allocator) -> None:
    who = f"{allocator.name}.allocate"
    for heads, total in ((2, 20), (3, 31), (1, 12)):
        o = _observation(heads, 2, 40, 4)
        scores = torch.rand(heads, 40, generator=torch.Generator().manual_seed(total))
        scores[:, -4:] = torch.inf
        with profiled(allocator, {0: heads}) as fitting:
            act = lambda a=fitting, o=o, s=scores, n=total: a.allocate(s, [o], n)  # noqa: E731
            counts = _unchanged(who, [scores, *_given(o)], act)
            need(torch.equal(act(), counts), f"{who} gave two answers to one question")
        need(tuple(counts.shape) == (heads,), f"{who} returned {tuple(counts.shape)}, not [H] = ({heads},)")
        need(not counts.is_floating_point(), f"{who} returned {counts.dtype}, not whole numbers")
        fits = int(counts.sum()) <= total and int(counts.min()) >= 0
        need(fits, f"{who} allotted {counts.tolist()} of a total of {total}")
    for heads, entries, tokens in (((2,), 30, 99), ((2, 2, 2, 2), 30, 999), ((4, 1, 1), 43, 50), ((1,) * 9, 20, 10)):
        with profiled(allocator, dict(enumerate(heads))) as fitting:
            _check_shares(fitting, heads, entries, tokens)


def _check_folder(folder: Folder) -> None:
    who, g = f"{folder.name}.fold", torch.Generator().manual_seed(5)
    for kept, gone, dtype in (
        (6, 20, torch.float32),
        (5, 0, torch.float32),
        (1, 9, torch.bfloat16),
        (8, 3, torch.float32),
    ):
        order = torch.randperm(kept + gone, generator=g)
        stays, goes = (
            Entries(
                keys=torch.randn(at.numel(), 8, generator=g).to(dtype),
                values=torch.randn(at.numel(), 4, generator=g).to(dtype),
                positions=at.to(torch.int32),
                scores=torch.randn(at.numel(), generator=g),
            )
            for at in (order[:kept].sort().values, order[kept:].sort().values)
        )
        act = lambda s=stays, d=goes: folder.fold(s, d)  # noqa: E731
        folded = _unchanged(who, [*stays, *goes], act)
        shapes = [tuple(t.shape) for t in folded[:2]]
        need(shapes == [(kept, 8), (kept, 4)], f"{who} made {shapes} of {kept} kept entries")
        need(torch.equal(folded.positions, stays.positions), f"{who} moved entries to other positions")
        need(all(bool(t.isfinite().all()) for t in folded[:2]), f"{who} returned what is not numbers")
        need(all(torch.equal(a, b) for a, b in zip(folded, act(), strict=True)), f"{who} gave two answers")
        if not gone:
            same = all(torch.equal(a.float(), b.float()) for a, b in zip(folded[:2], stays[:2], strict=True))
            need(same, f"{who} changed entries though nothing goes")


def _check_shares(allocator: Allocator, heads: Sequence[int], entries: int, tokens: int, floor: int = 20) -> None:
    who = f"{allocator.name}.shares"
    shares = allocator.shares(entries, heads, floor, tokens)
    need(len(shares) == len(heads), f"{who} returned {shares} for {len(heads)} layers")
    need(min(shares) >= floor, f"{who} gave a layer less than its floor of {floor}: {shares}")
    spent, most = sum(s * h for s, h in zip(shares, heads, strict=True)), entries * sum(heads)
    need(spent <= most, f"{who} shared out {spent} entries of {most}: {shares} for layers of {list(heads)} heads")
    need(shares == allocator.shares(entries, heads, floor, tokens), f"{who} gave two answers to one question")


def _check_store(store: Store) -> None:
    for counts in ((70, 70), (33, 0, 129), (1,)):
        for scale in (0.01, 1.0, 300.0):
            _check_pack(store, counts, scale)
    for count in (1, 16, 100, 128, 333):
        keys, values = torch.randn(2 * count, 16), torch.randn(2 * count, 16)
        block = store.pack(keys, values, (count, count))
        announced = store.nbytes(count, 2, 16, 16, torch.float32)
        need(
            block.nbytes == announced,
            f"{store.name}.nbytes announced {announced} bytes for 2 heads of {count} entries, and its block holds "
            f"{block.nbytes}",
        )


def _check_pack(store: Store, counts: tuple[int, ...], scale: float) -> None:
    g = torch.Generator().manual_seed(sum(counts))
    keys, values = (torch.randn(sum(counts), 16, generator=g) * scale for _ in range(2))
    keys[:, 3] = 2.5 * scale
    block = _unchanged(f"{store.name}.pack", [keys, values], lambda: store.pack(keys, values, counts))
    who = f"the block that {store.name} packs from counts {counts}"
    need(block.entries == sum(counts), f"{who} holds {block.entries} entries")
    storage = allocated_bytes(block)
    need(block.nbytes == storage, f"{who} reports {block.nbytes} bytes and holds {storage}")
    whole = block.unpack(0, block.entries)
    tensors = {name: tensor.clone() for name, tensor in block.tensors().items()}
    again = block_from_tensors(block.kind, tensors, json.loads(json.dumps(block.data())))
    start, stop = block.entries // 3, block.entries * 2 // 3 + 1
    for name, x, got, run, reread in zip(
        ("keys", "values"),
        (keys, values),
        whole,
        block.unpack(start, stop),
        again.unpack(0, block.entries),
        strict=True,
    ):
        need(got.shape == x.shape and got.dtype == x.dtype, f"{who} unpacks {name} of another shape or dtype")
        need(torch.equal(run, got[start:stop]), f"{who} unpacks a run of {name} differently than the whole")
        need(torch.equal(reread, got), f"{who} does not survive being written: {name} differ")
        for head, (held, was) in enumerate(zip(got.split(list(counts)), x.split(list(counts)), strict=True)):
            if was.numel():
                _check_precision(store, f"{who}, in the {name} of head {head},", held, was)


def _check_precision(store: Store, who: str, held: Tensor, was: Tensor) -> None:
    """`error` is a share of the largest magnitude; a little is added where float16 scales are rounded."""
    worst, largest = float((held - was).abs().max()), float(was.abs().max())
    allowed = store.error * (1 + 2**-8) * largest + 2**-20 * largest * bool(store.error)
    need(worst <= allowed, f"{who} is off by {worst:.3g}; {store.name}.error = {store.error:.3g} allows {allowed:.3g}")


def _check_compressor(compressor: Compressor) -> None:
    sizes, segments, at = (40, 0, 25, 60), [], 7
    for i, size in enumerate(sizes):  # gaps between: template and separators belong to no document
        segments.append(
            Segment(source=f"{i}.txt", document=i, start=0, end=4 * size, token_start=at, token_end=at + size)
        )
        at += size + 2
    who, total = f"{compressor.name}.compress", sum(sizes)
    if compressor.passes > 1:
        kept = compressor.compress(segments, None, compressor.reads(total))
        read = sum(s.token_end - s.token_start for s in kept)
        need(kept == segments * compressor.passes, f"{who} returned something else than the whole text again and again")
        need(read <= compressor.reads(total), f"{who} returned {read} tokens and announced {compressor.reads(total)}")
        return
    for budget in (1, 2, 17, total - 1, total, total + 10):
        for question in (None, "Which port does the gateway use?"):
            before = list(segments)
            kept = compressor.compress(segments, question, budget)
            need(segments == before, f"{who} changed the list it was given")
            need(kept == compressor.compress(segments, question, budget), f"{who} gave two answers to one question")
            read = sum(s.token_end - s.token_start for s in kept)
            need(0 < read <= budget, f"{who} returned {read} tokens for a budget of {budget}")
            need(budget < total or kept == segments, f"{who} changed a text of {total} tokens that fits {budget}")
            _check_provenance(who, segments, kept)


def _check_provenance(who: str, segments: list[Segment], kept: list[Segment]) -> None:
    end = 0
    for part in kept:
        need(part.token_start >= end, f"{who} returned tokens twice or out of order")
        end = part.token_end
        whole = segments[part.document]
        inside = whole.token_start <= part.token_start <= part.token_end <= whole.token_end
        inside &= whole.start <= part.start <= part.end <= whole.end
        need(inside and part.source == whole.source, f"{who} returned a part that lies in no segment it was given")
