"""MagicPIG: sampling by locality-sensitive hashing."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from farspan.errors import PlanError
from farspan.methods.fetch.base import Asked, Candidates, Fetch, Sealed, Selection
from farspan.registry import Paper

ROWS = 4096  # keys hashed or compared at a time


@dataclass(frozen=True, kw_only=True)
class Magicpig(Fetch):
    """Read a sample of entries, likelier the nearer their keys are to the query, and count each for those left out.

    An entry is sampled where its key and the query fall on the same sides of `bits` random planes in at least two of
    `tables` tries. The probability u of that is known from their angle, and scores are raised by -log u: numerator and
    denominator of attention are estimated without bias. Keys are hashed less their mean. The budget is a ceiling: of
    more samples, that many are drawn, and count for all. One sample serves a group's query heads (and queries that
    share a selection), drawn by their mean direction: it stays unbiased for each of them.

    Source: Chen et al. 2024, "MagicPIG", section 4.1 and 4.2; 8 bits and 75 tables are one of their settings. Codes are
    compared one by one, where theirs look buckets up in hash tables.
    """

    paper: ClassVar[Paper | None] = Paper("MagicPIG", arxiv="2410.16179", id=355)

    bits: int = 8
    tables: int = 75
    seed: int = 0

    def check(self) -> None:
        """Codes of 16 bits at most; two tables can collide."""
        if not 1 <= self.bits <= 15:
            raise PlanError(f"bits={self.bits} is no size of a code; give 1 to 15")
        if self.tables < 2:
            raise PlanError(f"tables={self.tables} cannot collide twice; give 2 or more")
        super().check()

    def index(self, sealed: Sealed) -> dict[str, Tensor]:
        """-> `codes` [h, N, tables] int16 and `mean` [h, D] float32."""
        mean = sealed.keys.float().mean(1)
        parts = [self._hashed(rows.float() - mean[:, None]) for rows in sealed.keys.split(ROWS, 1)]
        return {"codes": torch.cat(parts, 1), "mean": mean}

    def index_bytes(self, count: int, heads: int, head_size: int, dtype: torch.dtype) -> int:
        """Two bytes for each table and entry."""
        return heads * (count * self.tables * 2 + head_size * 4)

    def _hashed(self, vectors: Tensor) -> Tensor:
        """vectors [..., D] -> [..., tables] int16."""
        sides = vectors @ planes(self.seed, self.bits, self.tables, vectors.shape[-1]).to(vectors.device) > 0
        weights = 2 ** torch.arange(self.bits, device=vectors.device)
        return (sides.unflatten(-1, (self.tables, self.bits)) * weights).sum(-1).to(torch.int16)

    def select(self, asked: Asked, held: Sequence[Candidates], k: int) -> list[Selection]:
        """Those that collide at least twice, with -log of the probability that they would."""
        query = normalize(normalize(asked.queries.float(), dim=-1).mean((1, 2)), dim=-1)
        code = self._hashed(query)
        sampled = [[self._sampled(each, code[h], h) for h in range(query.shape[0])] for each in held]
        generator = asked.generator()
        total = [sum(its[h].numel() for its in sampled) for h in range(query.shape[0])]
        kept = [torch.randperm(n, generator=generator)[:k].sort().values if n > k else None for n in total]
        selections = []
        before = [0] * len(total)
        for each, its in zip(held, sampled, strict=True):
            slots, weights = [], []
            for head, found in enumerate(its):
                inside = slice(before[head], before[head] + found.numel())
                before[head] = inside.stop
                drawn = kept[head]
                chosen = found if drawn is None else found[drawn[_within(drawn, inside)] - inside.start]
                slots.append(chosen)
                weights.append(self._log_weights(each, query[head], chosen, head) + math.log(max(1.0, total[head] / k)))
            selections.append(Selection(tuple(slots), tuple(weights)))
        return selections

    def _sampled(self, held: Candidates, code: Tensor, head: int) -> Tensor:
        first, stop = held.first[head], held.stop[head]
        collide = (held.index["codes"][head, first:stop] == code).sum(-1) >= 2
        return collide.nonzero()[:, 0] + first

    def _log_weights(self, held: Candidates, query: Tensor, slots: Tensor, head: int) -> Tensor:
        """-> [n] float32: -log of the probability that each of these was sampled."""
        keys = held.keys[head, slots].float() - held.index["mean"][head]
        return -sampling(normalize(keys, dim=-1) @ query, self.bits, self.tables).log().float()


def _within(drawn: Tensor, inside: slice) -> Tensor:
    return (drawn >= inside.start) & (drawn < inside.stop)


@functools.lru_cache(maxsize=8)
def planes(seed: int, bits: int, tables: int, size: int) -> Tensor:
    """[size, tables · bits]: random directions, the same in any process."""
    return torch.randn(size, tables * bits, generator=torch.Generator().manual_seed(seed))


def sampling(cosine: Tensor, bits: int, tables: int) -> Tensor:
    """cosine [n] of query and key -> [n] float64: the probability that codes agree in at least two tables.

    One plane separates them with probability θ/π, so a table agrees with x = (1 - θ/π)^bits.
    """
    angle = torch.arccos(cosine.double().clamp(-1, 1))
    x = (1 - angle / math.pi).clamp_min(1e-12) ** bits
    none = torch.exp(tables * torch.log1p(-x.clamp_max(1 - 1e-15)))
    once = tables * x * torch.exp((tables - 1) * torch.log1p(-x.clamp_max(1 - 1e-15)))
    return (1 - none - once).clamp_min(1e-12)
