"""Reading a text in pieces that do not see each other, each from where it will stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from farspan.budget import Budget
from farspan.cache import SequenceCache
from farspan.cache.pieces import Pieces
from farspan.errors import BudgetError
from farspan.methods.order.base import equal_chunks
from farspan.methods.parallel.base import Parallel, Standing
from farspan.methods.retain.base import Scorer
from farspan.plan import RETAIN, Plan
from farspan.runtime.composing import Composing, Piece, compose
from farspan.runtime.layout import ModelLayout
from farspan.runtime.reader import Body, Job, Progress, ProgressHook, Report, read, stated_peak


@dataclass(frozen=True)
class Apart:
    """A text on its way to be read apart: `job` is as for reading it whole, of which the first `head` tokens stand
    before every piece; `cuts` are the pieces [start, stop), without gaps.
    """

    job: Job
    head: int
    cuts: tuple[tuple[int, int], ...]
    standing: Standing
    pieces: Pieces

    @classmethod
    def of(cls, job: Job, prefix: int, documents: Sequence[int], method: Parallel) -> Apart:
        """`prefix` tokens of `job.ids` belong to no document, which begin at the tokens `documents`."""
        head = min(prefix + method.shared(), job.ids.numel() - 1)
        edges = [head, *(at for at in documents if at > head), job.ids.numel()]
        cuts = [
            (start + a, start + b)
            for start, stop in pairwise(edges)
            for a, b in equal_chunks(stop - start, method.chunk)
        ]
        standing = method.stand(head, [stop - start for start, stop in cuts])
        return cls(job, head, tuple(cuts), standing, method.pieces(cuts))

    def jobs(self, layout: ModelLayout) -> list[tuple[Job | None, Job]]:
        """-> for every piece what reads the head, if there is one, and what reads the piece itself."""
        ids, nontext = self.job.ids, self.job.nontext
        before = Plan(tuple(method for method in self.job.plan.methods if method.slot not in (*RETAIN, "parallel")))
        out = []
        for (start, stop), plan, position in zip(self.cuts, self._plans(layout), self.standing.positions, strict=True):
            cache = layout.empty(trace=self.job.cache.events is not None)
            cache.next_position = position - self.head
            head = Job(cache, ids[: self.head], before) if self.head else None
            marks = None if nontext is None else nontext[start:stop]
            piece = Job(cache, ids[start:stop], plan, self.job.probe, marks, self.job.kinds, goes_on=True)
            out.append((head, piece))
        return out

    def _plans(self, layout: ModelLayout) -> list[Plan]:
        """What each piece is read under: the plan's budget, shared out."""
        total = self.job.ids.numel()
        plan = layout.settled(self.job.plan, total)
        plan = Plan(tuple(method for method in plan.methods if method.slot != "parallel"))
        scorer = plan.get("score")
        if not isinstance(scorer, Scorer) or plan.budget is None:
            return [plan] * len(self.cuts)
        sizes = [stop - start for start, stop in self.cuts]
        entries = layout.budget(plan, plan.budget, total)
        shares = shared_out(entries - self.head, sizes, scorer, plan)
        if plan.budget.kind == "bytes":
            while self._bytes(layout, plan, shares) > plan.budget.value:
                entries -= 1
                shares = shared_out(entries - self.head, sizes, scorer, plan)
        return [_with_budget(plan, max(share, scorer.floor)) for share in shares]

    def _bytes(self, layout: ModelLayout, plan: Plan, shares: Sequence[int]) -> int:
        """Bytes of KV when every piece holds its share: layers with a window are held once."""
        size = layout.size_of(plan, self.job.ids.numel())
        once = size(0)
        return sum(size(share) - once for share in [self.head, *shares]) + once


def shared_out(entries: int, sizes: Sequence[int], scorer: Scorer, plan: Plan) -> list[int]:
    """Entries per head for pieces of these sizes: each what its scorer never drops, the rest in proportion.

    Raises BudgetError where the budget does not hold even that.
    """
    least = [min(size, scorer.floor) for size in sizes]
    left = entries - sum(least)
    if left < 0:
        raise BudgetError(
            f"{scorer.name} with budget {plan.budget} comes to {max(entries, 0)} entries per head for {len(sizes)} "
            f"pieces, which hold {sum(least)} at least (sinks and newest tokens of each). "
            "Give a larger budget, or larger pieces"
        )
    free = [size - low for size, low in zip(sizes, least, strict=True)]
    every = max(sum(free), 1)
    return [low + min(room, left * room // every) for low, room in zip(least, free, strict=True)]


def _with_budget(plan: Plan, entries: int) -> Plan:
    budget = Budget.parse(entries)
    return Plan(tuple(replace(m, budget=budget) if isinstance(m, Scorer) else m for m in plan.methods))


def read_apart(body: Body, apart: Apart, progress: ProgressHook | None = None) -> tuple[SequenceCache, Report]:
    """Read one piece after another and put them together; nothing that was read has to move.

    A piece is read behind its own copy of the head, from the position where it will stand; of the copies only the
    first stays.
    """
    layout, total, done = body.layout, apart.job.ids.numel(), 0
    seconds, peak = 0.0, 0
    stated = stated_apart(body, apart)
    pieces: list[Piece] = []
    held = 0
    for (head, job), (start, stop) in zip(apart.jobs(layout), apart.cuts, strict=True):
        for each in filter(None, (head, job)):
            hook = None if progress is None else _later(progress, done, total, seconds, held)
            report = read(body, [each], hook)
            seconds, peak = seconds + report.seconds, max(peak, held + report.peak_bytes)
        done += stop - start
        held += job.cache.nbytes
        first = apart.head if pieces else 0
        pieces.append(Piece(job.cache, first, start if pieces else 0, 0))
    whole = compose(pieces, apart.standing.next_position, apart.pieces, Composing(body.rotations, None))
    return whole, Report(seconds, peak, stated)


def stated_apart(body: Body, apart: Apart) -> int:
    """Bytes of KV that this read will never exceed: all pieces as they are held, and one as it is read."""
    layout = body.layout
    size, most, held = None, 0, 0
    for head, job in apart.jobs(layout):
        size = layout.size_of(job.plan, job.total)
        entries = job.ids.numel() if job.plan.budget is None else layout.budget(job.plan, job.plan.budget, job.total)
        behind = 0 if head is None else layout.full_bytes(apart.head) + stated_peak(body, head)
        most = max(most, behind + stated_peak(body, job))
        held += behind + size(min(job.ids.numel(), entries))
    return held + most


def _later(hook: ProgressHook, done: int, total: int, seconds: float, held: int) -> ProgressHook:
    def told(progress: Progress) -> None:
        hook(Progress(min(done + progress.done, total), total, seconds + progress.seconds, held + progress.held_bytes))

    return told


__all__ = ["Apart", "read_apart", "shared_out", "stated_apart"]
