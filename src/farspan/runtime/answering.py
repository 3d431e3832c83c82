"""Holding a budget while answering: what came after reading never takes more than the plan's `decode` allows."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from farspan.cache import SEAL_EVERY, LayerCache, SequenceCache
from farspan.methods.retain.base import Scorer
from farspan.plan import Plan
from farspan.runtime.entries import open_counts
from farspan.runtime.retention import Moment, Retention
from farspan.signals import Rotations


@dataclass
class Answering:
    """One turn of a conversation under a budget of `limit` entries per head for all that came since reading.

    Decisions touch the tail and the extents that earlier decisions left, never what was read: shared extents stay
    shared. Each one makes room for as many tokens as may then come before the next, up to 128, so that n tokens cost
    O(n) whatever n is. Queries are kept until the next decision, as many as the scorer wants, and not beyond the turn.
    """

    retention: Retention
    limit: int
    began: int
    rotations: Rotations | None = None
    asked: dict[int, list[Tensor]] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: Plan, cache: SequenceCache, rotations: Rotations | None) -> Answering | None:
        """For a turn that goes on from `cache`; None where the plan holds new tokens as they come."""
        scorer = plan.get("score")
        if not isinstance(scorer, Scorer) or scorer.decode is None:
            return None
        room = max(1, min(SEAL_EVERY, (scorer.decode - scorer.floor) // 2))
        entries = max(scorer.floor, scorer.decode - room)
        retention = Retention.of(plan, entries, layered=False)
        return cls(retention, scorer.decode, cache.seen, rotations)

    def settle(self, cache: SequenceCache, layer: LayerCache, query: Tensor, seen: int, scaling: float) -> int:
        """A layer has got new tokens, whose queries are `query` [Hq, T, D]; returns bytes in transit."""
        scorer, asked = self.retention.scorer, self.asked.setdefault(layer.index, [])
        if scorer.accumulates or scorer.observes():
            asked.append(query[:, -query.shape[1] if scorer.accumulates else -scorer.observes() :].clone())
        waiting = sum(part.shape[1] for part in asked)
        due = max(open_counts(layer)) > self.limit
        if not due and not (scorer.accumulates and waiting >= SEAL_EVERY):
            self._forget(asked, waiting)
            return 0
        transit = self.retention.decide(layer, self._moment(cache, asked, query, seen, scaling, due), cache.events)
        if scorer.accumulates:
            asked.clear()
        else:
            self._forget(asked, waiting)
        return transit

    def finish(self, cache: SequenceCache, scaling: dict[int, float]) -> None:
        """The turn is over: accumulate what its last queries say; `scaling` is each layer's."""
        for layer in cache.layers:
            asked = self.asked.pop(layer.index, [])
            if asked and self.retention.scorer.accumulates:
                moment = self._moment(cache, asked, asked[0], cache.seen, scaling[layer.index], due=False)
                self.retention.decide(layer, moment, None)

    def _moment(
        self, cache: SequenceCache, asked: list[Tensor], query: Tensor, seen: int, scaling: float, due: bool
    ) -> Moment:
        queries = torch.cat(asked, 1) if asked else query[:, :0]
        positions = torch.arange(seen - queries.shape[1], seen, dtype=torch.int32, device=query.device)
        return Moment(
            seen=seen,
            queries=queries,
            query_positions=positions,
            probed=False,
            scaling=scaling,
            token_ids=cache.ids() if due else torch.empty(0, dtype=torch.int32),
            due=due,
            began=self.began,
            rotations=self.rotations,
        )

    def _forget(self, asked: list[Tensor], waiting: int) -> None:
        """Let go of queries older than the scorer will ask for."""
        wanted = self.retention.scorer.observes()
        while asked and not self.retention.scorer.accumulates and waiting - asked[0].shape[1] >= wanted:
            waiting -= asked.pop(0).shape[1]
