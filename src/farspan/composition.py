"""Contexts that were read apart, answered together.

Their entries move to where the plan's method wants them: keys are turned, dense ones exactly; packed ones are packed
anew, and `cost.repacked` counts them. The template's opening is kept once, that of the first context; every document
keeps its source. What follows, questions or documents that are appended, sees all of them. The contexts themselves stay
as they are, and storage that need not change is shared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate, combinations
from typing import TYPE_CHECKING

from farspan.answer import Foreseen, ReadCost
from farspan.cache.pieces import Pieces
from farspan.context import Context
from farspan.errors import CapacityError, ForeignContext, PlanDoesNotApply, PlanError, UnsupportedModel, UsageError
from farspan.methods.parallel._merging import Merging
from farspan.methods.parallel.base import Parallel, Standing
from farspan.methods.parallel.concat import Concat
from farspan.plan import Plan
from farspan.runtime import hf_fingerprint
from farspan.runtime.apart import Apart, read_apart, stated_apart
from farspan.runtime.composing import Composing, Piece
from farspan.runtime.composing import compose as compose_sequences
from farspan.runtime.merging import Hierarchy, read_merged
from farspan.runtime.packing import Packing
from farspan.runtime.positions import PositionSpec
from farspan.runtime.reader import Job, ProgressHook, Report
from farspan.text import TokenMap
from farspan.text.provenance import repeated

if TYPE_CHECKING:
    from farspan.cache import SequenceCache
    from farspan.model import Model


def compose(model: Model, contexts: Sequence[Context], plan: str | Plan | None, room: int) -> Context:
    """One context of several; `room` is how many positions are decided for beyond those that they take.

    Raises UsageError for a conversation or the same text twice, PlanError for contexts held in different ways or a plan
    that does not say how they go together, ForeignContext for another model's, CapacityError for positions that do not
    reach or are of another kind, PlanDoesNotApply for entries that cannot move.
    """
    began = time.perf_counter()
    contexts = list(contexts)
    _check(model, contexts)
    method, together = _plans(contexts, plan)
    first = model.prompts.prefix().numel()
    standing = method.stand(first, [context.next_position - first for context in contexts])
    positions = _positions(contexts, standing.next_position, room)
    pieces = _placed([context._cache.fork() for context in contexts], first, standing)
    rotations = model.runtime(positions).rotations
    _check_moves(model, positions, pieces, standing)
    how = Composing(rotations, Packing.of(together, rotations))
    cache = compose_sequences(pieces, standing.next_position, method.pieces(_ranges(pieces, first)), how)
    tokens = contexts[0].tokens
    for context, piece in zip(contexts[1:], pieces[1:], strict=True):
        tokens = tokens.joined(context.tokens, piece.at - piece.start)
    return Context(model, together, positions, tokens, _cost(contexts, cache, how, began), cache)


def _check(model: Model, contexts: list[Context]) -> None:
    """Raise for what cannot stand together, whatever the plan."""
    if not contexts:
        raise UsageError("compose what? Give a list of contexts, such as [model.open('a.ctx'), model.open('b.ctx')]")
    for number, context in enumerate(contexts, 1):
        if not isinstance(context, Context):
            raise UsageError(f"{context!r} is no context; read or open it first: model.open({context!r})")
        theirs = context.model
        if theirs is not model and theirs.fingerprint["whole"] != model.fingerprint["whole"]:
            how = hf_fingerprint.difference(theirs.fingerprint, model.fingerprint)
            raise ForeignContext(
                f"context {number} was read with {theirs.path!r}; {model.path!r} is another model: {how}"
            )
        if context._turns:
            raise UsageError(
                f"context {number} holds a conversation ({context._turns} turns); compose what was read, then ask"
            )
    for (i, a), (j, b) in combinations(enumerate(contexts, 1), 2):
        source = repeated(a.tokens, a.token_ids, b.tokens, b.token_ids)
        if source is not None:
            raise UsageError(
                f"contexts {i} and {j} both hold the same text of {source}; it would count twice. Give it once"
            )


def _plans(contexts: list[Context], plan: str | Plan | None) -> tuple[Parallel, Plan]:
    """-> how the pieces go together, and the plan of the whole: the first context's, with that in it."""
    given = None if plan is None else Plan.parse(plan)
    method = Concat() if given is None else given.get("parallel")
    if not isinstance(method, Parallel) or (given is not None and len(given.methods) > 1):
        raise PlanError(
            f"{str(given)!r} does not say how contexts go together: name one method of the family parallel, such as "
            "'concat' or 'ape'. What was read keeps the plan that it was read with"
        )
    if isinstance(method, Merging):
        raise PlanError(
            f"{method.name} merges pieces while they are read, and these have been read; compose them with 'concat', "
            f"'ape' or 'sinks', or read the documents together under {method.name}"
        )
    plans = [context.settled_plan for context in contexts]
    for number, each in enumerate(plans, 1):
        for slot in ("store", "place"):
            if each.get(slot) != plans[0].get(slot):
                here, there = (p.get(slot) for p in (plans[0], each))
                raise PlanError(
                    f"context 1 was read with {_named(here)} and context {number} with {_named(there)} in the slot "
                    f"{slot!r}; contexts that stand together are held alike. Read them again with one {slot}"
                )
    return method, Plan((*(m for m in plans[0].methods if m.slot != "parallel"), method))


def _named(method: object) -> str:
    return "nothing" if method is None else repr(getattr(method, "name", method))


def _positions(contexts: list[Context], end: int, room: int) -> PositionSpec:
    """The positions of the whole; raises CapacityError where those of the parts do not go together or do not reach."""
    first, *others = (context.positions for context in contexts)
    for number, spec in enumerate(others, 2):
        if not first.agrees(spec):
            one, other = (f"{s.rope_type}, for {s.length} positions" for s in (first, spec))
            raise CapacityError(
                f"the positions of context 1 ({one}) are not those of context {number} ({other}), and the model's "
                "angles depend on that; read all of them with the same positions and one length=..."
            )
    if (reason := first.immovable()) is not None:
        raise PlanDoesNotApply(f"{reason}, so entries cannot be moved; read the documents together")
    first.check(end + 1, f"composing {len(contexts)} contexts")
    reach = max(end + room, first.length, *(spec.length for spec in others))
    return first if first.bound else replace(first, length=reach)


def _placed(caches: list[SequenceCache], first: int, standing: Standing) -> list[Piece]:
    """Every sequence in its place: the first with the template's opening, of which the others leave out theirs."""
    ends = list(accumulate(cache.seen - first for cache in caches))
    pieces = []
    for cache, end, position in zip(caches, ends, standing.positions, strict=True):
        start = first if pieces else 0
        at = end - cache.seen + first + start
        pieces.append(Piece(cache, start, at, position - first))
    return pieces


def _ranges(pieces: list[Piece], first: int) -> list[tuple[int, int]]:
    """Token ranges of the whole that were read apart; what was composed before brings its own."""
    ranges: list[tuple[int, int]] = []
    for piece in pieces:
        by = piece.at - piece.start
        known = [(a + by, b + by) for a, b in (piece.cache.pieces.ranges if piece.cache.pieces else ())]
        begins, ends = known[-1][1] if known else first + by, piece.cache.seen + by
        ranges += [*known, *([(begins, ends)] if ends > begins else [])]
    return ranges


def _check_moves(model: Model, positions: PositionSpec, pieces: list[Piece], standing: Standing) -> None:
    """Raise where keys would have to move that cannot."""
    if positions.kind == "none" or model.runtime(positions).rotations is not None:
        return
    lag = pieces[-1].at + pieces[-1].cache.seen - pieces[-1].start - standing.next_position
    windows = any(window is not None for window in model.layout.windows)
    if any(piece.move or (windows and piece.slide(lag)) for piece in pieces):
        name = type(model.hf).__name__
        if positions.kind == "learned":
            raise PlanDoesNotApply(
                f"{name} learned its positions, so entries cannot be moved to where they would stand one after "
                "another; read the documents together, or compose with a method that moves none, such as 'ape'"
            )
        raise UnsupportedModel(f"{name} does not rotate its keys in a way that is known, so they cannot be moved")


def _cost(contexts: list[Context], cache: SequenceCache, how: Composing, began: float) -> ReadCost:
    """All that was read; at the peak one read, or the whole beside what it was made of."""
    costs = [context.cost for context in contexts]
    whole = cache.nbytes + sum(context.held_bytes for context in contexts)
    return ReadCost(
        seconds=sum(cost.seconds for cost in costs) + time.perf_counter() - began,
        tokens=sum(cost.tokens for cost in costs),
        peak_bytes=max(whole, *(cost.peak_bytes for cost in costs)),
        stated_peak_bytes=max(whole, *(cost.stated_peak_bytes for cost in costs)),
        seen=cache.seen,
        repacked=how.repacked,
    )


def read_in_pieces(
    model: Model, tokens: TokenMap, job: Job, decide: Callable[[int], PositionSpec], progress: ProgressHook | None
) -> Context:
    """A text read in pieces that do not see each other, by the plan's method; `decide` gives positions for so many."""
    method = job.plan.get("parallel")
    assert isinstance(method, Parallel)
    prefix = model.prompts.prefix().numel()
    if isinstance(method, Merging):
        tree = Hierarchy.of(job, prefix, method, model.layout)
        positions = _placing(decide(tree.next_position + tree.probe), method)
        cache, report = read_merged(model.runtime(positions), tree, progress)
        return _read(model, tokens, job, positions, cache, report)
    documents = [segment.token_start for segment in tokens.segments()]
    apart = Apart.of(job, prefix, documents, method)
    positions = _placing(decide(apart.standing.next_position), method)
    cache, report = read_apart(model.runtime(positions), apart, progress)
    return _read(model, tokens, job, positions, cache, report)


def foresee_in_pieces(model: Model, job: Job, decide: Callable[[int], PositionSpec]) -> Foreseen:
    """What reading `job` in pieces would need, as one document; raises as `read_in_pieces` would."""
    method, prefix, total = job.plan.get("parallel"), model.prompts.prefix().numel(), job.ids.numel()
    assert isinstance(method, Parallel)
    if isinstance(method, Merging):
        tree = Hierarchy.of(job, prefix, method, model.layout)
        _placing(decide(tree.next_position + tree.probe), method)
        return Foreseen(total, tree.stated(model.layout), tree.held(model.layout))
    apart = Apart.of(job, prefix, [prefix], method)
    positions = _placing(decide(apart.standing.next_position), method)
    plan = model.layout.settled(job.plan, total)
    entries = total if plan.budget is None else model.layout.budget(plan, plan.budget, total)
    held = model.layout.size_of(plan, total)(min(total, entries))
    return Foreseen(total, stated_apart(model.runtime(positions), apart), held)


def _placing(positions: PositionSpec, method: Parallel) -> PositionSpec:
    """The same; raises PlanDoesNotApply where entries cannot stand elsewhere than where they were read."""
    if (reason := positions.immovable()) is not None:
        raise PlanDoesNotApply(f"{reason}, so pieces cannot be moved; leave {method.name} out of the plan")
    return positions


def _read(
    model: Model, tokens: TokenMap, job: Job, positions: PositionSpec, cache: SequenceCache, report: Report
) -> Context:
    cost = ReadCost(report.seconds, job.ids.numel(), report.peak_bytes, report.stated_peak_bytes, cache.seen)
    return Context(model, job.plan, positions, tokens, cost, cache)


def pieces_of(plan: Plan, ranges: Sequence[Sequence[int]]) -> Pieces | None:
    """How a context that comes from a file attends to what of it was read apart."""
    method = plan.get("parallel")
    return method.pieces([(a, b) for a, b in ranges]) if isinstance(method, Parallel) and ranges else None
