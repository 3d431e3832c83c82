"""EM-LLM: events between surprises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from farspan.errors import PlanError
from farspan.methods.fetch._blocks import jointly
from farspan.methods.fetch._choosing import split
from farspan.methods.fetch._events import refined, surprises
from farspan.methods.fetch.base import Asked, Candidates, Fetch, Sealed, Selection
from farspan.registry import Paper


@dataclass(frozen=True, kw_only=True)
class Emllm(Fetch):
    """Read the events most like the queries, and the events beside them; an event begins where a token surprised.

    A token surprises where -log p lies `gamma` standard deviations above the mean of the `window` tokens before it.
    Each boundary then moves back, within its event, to where the graph of similar keys falls apart best (modularity of
    the two sides); events hold `shortest` to `longest` entries. They are known by the mean key of their
    `representatives`, as InfLLM's blocks are, and all heads of a layer read the same. A `contiguity` share of the
    budget is for the neighbours of the events that were retrieved, best first.

    Source: Fountas et al. 2024, "Human-like Episodic Memory for Infinite Context LLMs", section 3, and their code.
    Their contiguity buffer remembers neighbours of earlier steps, ours is filled anew each time. Surprise is known of
    tokens read in stream order; those of questions and answers make events of `longest`. Positions stay the context's.
    """

    paper: ClassVar[Paper | None] = Paper("EM-LLM", arxiv="2407.09450", id=21)
    notes: ClassVar[tuple[str, ...]] = ("surprisal", "asked")
    orders: ClassVar[tuple[str, ...]] = ("stream",)

    sinks: int = 128
    recent: int = 4096
    together: int = 512
    read: bool = True
    gamma: float = 1.0
    window: int = 128
    shortest: int = 8
    longest: int = 128
    representatives: int = 4
    contiguity: float = 0.3
    refine: bool = True

    def check(self) -> None:
        """Events of some length; a share."""
        for name in ("window", "shortest", "representatives"):
            if getattr(self, name) < 1:
                raise PlanError(f"{name}={getattr(self, name)} is none; give 1 or more")
        if self.longest < 2 * self.shortest:
            raise PlanError(f"longest={self.longest} leaves no choice; give at least twice shortest={self.shortest}")
        if not 0 <= self.contiguity < 1:
            raise PlanError(f"contiguity={self.contiguity} is no share of the budget; give 0 to below 1")
        super().check()

    @property
    def least(self) -> int:
        """The longest event, and its share."""
        return math.ceil(self.longest / (1 - self.contiguity))

    def index(self, sealed: Sealed) -> dict[str, Tensor]:
        """-> `starts` [h, B + 1] int32, alike for heads of the same tokens; `means` [h, B, D] of representatives."""
        heads = range(sealed.keys.shape[0])
        alike = bool((sealed.positions == sealed.positions[:1]).all())
        edges = [self._edges(sealed, slice(None))] * len(heads) if alike else [
            self._edges(sealed, slice(h, h + 1)) for h in heads
        ]  # fmt: skip
        longest, count = max(map(len, edges)), sealed.keys.shape[1]
        edges = [its + [count] * (longest - len(its)) for its in edges]  # empty events behind
        means = [torch.stack([self._mean(sealed, h, a, b) for a, b in pairwise(edges[h])]) for h in heads]
        starts = torch.tensor(edges, dtype=torch.int32)
        return {"starts": starts, "means": torch.stack(means).to(sealed.keys.dtype)}

    def index_bytes(self, count: int, heads: int, head_size: int, dtype: torch.dtype) -> int:
        """One key and a number for every event, which are no shorter than the shortest but for the last."""
        many = -(-count // self.shortest) + 1
        return heads * (many * head_size * dtype.itemsize + (many + 1) * 4)

    def _edges(self, sealed: Sealed, heads: slice) -> list[int]:
        """Where events of these heads begin, and the end of the last."""
        count = sealed.keys.shape[1]
        unit = normalize(sealed.keys[heads].float(), dim=-1)
        found = surprises(sealed.noted["surprisal"][heads][0], self.window, self.gamma)
        edges = [0]
        for at in (*found, count):
            while at - edges[-1] > self.longest:
                edges.append(edges[-1] + self.longest)
            if self.refine and at < count and at - edges[-1] >= 2 * self.shortest:
                at = refined(unit, edges[-1], at, self.shortest)
            if at - edges[-1] >= self.shortest or at == count > edges[-1]:
                edges.append(at)
        return edges

    def _mean(self, sealed: Sealed, head: int, start: int, stop: int) -> Tensor:
        """[D]: zero for an empty event."""
        best = sealed.noted["asked"][head, start:stop].topk(min(self.representatives, stop - start)).indices
        return sealed.keys[head, start:stop][best].float().sum(0) / max(1, best.numel())

    def select(self, asked: Asked, held: Sequence[Candidates], k: int) -> list[Selection]:
        """The best events of the budget's larger share, then neighbours."""
        probe = asked.queries.float().mean(2).sum(1).to(held[0].index["means"].dtype)
        scores = jointly([(e.index["means"] @ probe[..., None])[..., 0].float() for e in held], held)
        edges = [0]
        for each in held:
            edges.append(edges[-1] + each.entries)
        heads = range(asked.queries.shape[0])
        return split([self._entries([its[h] for its in scores], held, h, edges, k) for h in heads], edges)

    def _entries(
        self, scores: Sequence[Tensor], held: Sequence[Candidates], head: int, edges: Sequence[int], k: int
    ) -> Tensor:
        """scores [B] of each extent -> [n] ascending: candidates of one head, extents laid end to end."""
        spans = [(a + edge, b + edge) for each, edge in zip(held, edges, strict=False) for a, b in _bounded(each, head)]
        ranked = torch.cat(list(scores)).argsort(descending=True).tolist()
        for_events = k - int(k * self.contiguity)
        best = _fitting(ranked, spans, for_events, set())
        beside = [at for event in best for at in (event - 1, event + 1) if 0 <= at < len(spans)]
        room = k - sum(spans[at][1] - spans[at][0] for at in best)
        chosen = sorted({*best, *_fitting(beside, spans, min(room, k - for_events), set(best))})
        parts = [torch.arange(*spans[at]) for at in chosen]
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)


def _bounded(held: Candidates, head: int) -> list[tuple[int, int]]:
    """Of every event of one head, the run of its candidates; an empty one where there is none."""
    first, stop = held.first[head], held.stop[head]
    return [(max(a, first), max(max(a, first), min(b, stop))) for a, b in pairwise(held.index["starts"][head].tolist())]


def _fitting(wanted: Sequence[int], spans: Sequence[tuple[int, int]], room: int, taken: set[int]) -> list[int]:
    """The events in the order given, as long as they fit."""
    found: list[int] = []
    for at in wanted:
        size = spans[at][1] - spans[at][0]
        if at in taken or at in found or not size:
            continue
        if size > room:
            break
        found.append(at)
        room -= size
    return found
