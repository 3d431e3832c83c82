"""Carrying out a plan's decisions on one layer of one sequence: score, allocate, keep, and free the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from farspan.attention.scaling import of_heads
from farspan.cache import DenseBlock, Events, Extent, LayerCache
from farspan.cache.sequence import Kept, Replaced
from farspan.errors import BudgetError, PlanError
from farspan.methods.retain.base import Allocator, Entries, Folder, Scorer, keep
from farspan.methods.retain.uniform import Uniform
from farspan.methods.store.base import Store
from farspan.plan import Plan
from farspan.runtime.entries import Held, extent_of, gather, open_counts, write_state
from farspan.runtime.layout import LayerLayout, ModelLayout, state_bytes
from farspan.signals import Observation, Rotations


@dataclass(frozen=True)
class Moment:
    """When and for whom a decision is made: `seen` tokens have been read, these are the last queries.

    For scorers that accumulate, these are all queries of the chunk, and a probe's stand apart: they are accumulated
    last, for this decision alone.
    """

    seen: int
    queries: Tensor  # [Hq, W, D]
    query_positions: Tensor  # [W] int32
    probed: bool
    scaling: float
    token_ids: Tensor
    probe: tuple[Tensor, Tensor] | None = None
    """Queries and positions of a probe, where `queries` are the chunk's."""
    due: bool = True
    """False where no decision follows yet (layerwise order, before the last chunk)."""
    began: int = 0
    rotations: Rotations | None = None
    surprisal: Tensor | None = None
    nontext: Tensor | None = None
    kinds: Tensor | None = None
    carried: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Retention:
    """The retain slots of a plan with the budget resolved: `entries` per key-value head on average over all layers,
    `shares[l]` in layer l where the allocator treats layers apart.
    """

    scorer: Scorer
    allocator: Allocator
    entries: int
    plan_hash: str
    shares: Mapping[int, int] = field(default_factory=dict)
    folder: Folder | None = None

    @classmethod
    def of(
        cls, plan: Plan, entries: int, layout: ModelLayout | None = None, tokens: int = 0, *, layered: bool = True
    ) -> Retention:
        """From a plan that has a scorer; raises BudgetError below the scorer's floor.

        `tokens` is all that will have been seen. Allocators that treat layers apart need the layout. A budget in bytes
        is given as the `entries` it allows to equal heads; what unequal ones take more, in groups of a store that
        stay short, is taken off here. `layered` is False where all layers hold alike, whatever the allocator.
        """
        scorer, allocator, folder = plan.get("score"), plan.get("allocate") or Uniform(), plan.get("fold")
        if not isinstance(scorer, Scorer) or not isinstance(allocator, Allocator):
            raise PlanError(f"the retain slots of {str(plan)!r} hold something that is neither scorer nor allocator")
        if folder is not None and not isinstance(folder, Folder):
            raise PlanError(f"{folder.name} fills the slot 'fold' of {str(plan)!r} and is no folder")
        _check_floor(plan, scorer, entries)
        if layout is None:
            if layered and type(allocator).shares is not Allocator.shares:
                raise PlanError(f"{allocator.name} shares entries out over layers, and no layout says which there are")
            return cls(scorer, allocator, entries, plan.hash, folder=folder)
        shares = _shares(allocator, scorer, entries, layout, tokens)
        if plan.budget is not None and plan.budget.kind == "bytes" and not isinstance(allocator, Uniform):
            while _most_bytes(plan, shares, layout, tokens) > plan.budget.value:
                entries -= 1
                _check_floor(plan, scorer, entries)
                shares = _shares(allocator, scorer, entries, layout, tokens)
        return cls(scorer, allocator, entries, plan.hash, shares, folder)

    def share(self, layer: int) -> int:
        """Entries per head on average that this layer may hold."""
        return self.shares.get(layer, self.entries)

    @property
    def smallest(self) -> int:
        """The smallest share of any layer."""
        return min(self.shares.values(), default=self.entries)

    def decide(self, layer: LayerCache, moment: Moment, events: Events | None) -> int:
        """Accumulate what the scorer accumulates; then, if it is time and more is held than may be, keep what the plan
        keeps of everything this read may still decide about. Returns bytes in transit.

        What stays becomes one open extent of freshly allocated storage; what goes is freed.
        """
        counts = open_counts(layer)
        share = self.share(layer.index)
        passed_on = self.scorer.cascades and "kept" in moment.carried
        due = moment.due and (max(counts) > share or passed_on)
        names = self.scorer.accumulates
        if not due and not names:
            return 0
        copied = len(layer.extents) > layer.sealed  # a tail alone is lent
        held = gather(layer, names)
        queries = moment.queries.unflatten(0, (len(counts), -1))
        observed = [self._observe(layer, moment, entries, queries) for entries in held]
        in_transit = sum(entries.nbytes for entries in held) * copied + 3 * 4 * sum(counts) * len(names)
        if names:
            held = self._accumulate(layer, observed, held)
            observed = [replace(o, state=entries.state) for o, entries in zip(observed, held, strict=True)]
        if not due:
            write_state(layer, held)
            return in_transit
        if moment.probe is not None:
            observed = self._probed(layer, moment, held, moment.probe)
        dead = [entries.first in layer.pruned for entries in held]  # these stand alone: see `gather`
        scored = [
            o.keys.new_full(o.positions.shape, -torch.inf) if no else self._scores(o)
            for o, no in zip(observed, dead, strict=True)
        ]
        scores = [head for group in scored for head in group] if self.folder is not None else []
        kept = self._kept(observed, scored, dead, share * len(counts))
        if names:
            write_state(layer, held, kept)
        extent = extent_of(held, kept)
        if self.scorer.cascades:
            moment.carried["kept"] = torch.zeros(moment.seen, dtype=torch.bool, device=extent.positions.device)
            moment.carried["kept"][extent.positions.long()] = True
        if self.folder is not None:
            in_transit += self._fold(self.folder, extent, held, kept, scores)
        layer.extents = (*layer.extents[: layer.sealed], extent)
        layer.own = min(layer.own, layer.sealed)
        layer.tail.clear()
        if events is not None:
            positions = tuple(layer.positions(h).clone() for h in range(extent.heads))
            events.add(Kept(layer.index, moment.seen, positions))
            if self.folder is not None:
                events.add(Replaced(layer.index, moment.seen, extent))
        return in_transit + extent.nbytes

    def _observe(self, layer: LayerCache, moment: Moment, held: Held, queries: Tensor) -> Observation:
        """`queries` [Hk, G, W, D] of the whole layer."""
        return Observation(
            layer=layer.index,
            keys=held.keys,
            values=held.values,
            positions=held.positions,
            queries=queries[held.heads].flatten(0, 1),
            query_positions=moment.query_positions,
            scaling=of_heads(moment.scaling, held.heads, queries.shape[0]),
            token_ids=moment.token_ids,
            seen=moment.seen,
            began=moment.began,
            probed=moment.probed,
            generator=_generator(self.plan_hash, layer.index, held.first, moment.seen),
            state=held.state,
            surprisal=moment.surprisal,
            nontext=moment.nontext,
            kinds=moment.kinds,
            carried=moment.carried,
            rotations=moment.rotations,
        )

    def _probed(
        self, layer: LayerCache, moment: Moment, held: Sequence[Held], probe: tuple[Tensor, Tensor]
    ) -> list[Observation]:
        """What is observed with a probe accumulated on top, which leaves no trace in `held`."""
        carried = {name: value.clone() for name, value in moment.carried.items()}
        lent = replace(moment, queries=probe[0], query_positions=probe[1], probed=True, nontext=None, carried=carried)
        heads = sum(entries.keys.shape[0] for entries in held)
        queries = lent.queries.unflatten(0, (heads, -1))
        observed = [self._observe(layer, lent, entries, queries) for entries in held]
        with_probe = self._accumulate(layer, observed, held)
        return [replace(o, state=entries.state) for o, entries in zip(observed, with_probe, strict=True)]

    def _accumulate(self, layer: LayerCache, observed: Sequence[Observation], held: Sequence[Held]) -> list[Held]:
        """The entries with new state, but of pruned heads, which see nothing."""
        pairs = zip(observed, held, strict=True)
        return [its if its.first in layer.pruned else self._accumulated(o, its) for o, its in pairs]

    def _accumulated(self, o: Observation, held: Held) -> Held:
        """The entries with the state that the scorer gives them now, checked against its contract."""
        state = self.scorer.accumulate(o)
        shapes = {name: tuple(values.shape) for name, values in state.items()}
        wanted = dict.fromkeys(self.scorer.accumulates, tuple(o.positions.shape))
        if shapes != wanted:
            raise PlanError(f"{self.scorer.name} accumulated {shapes}; it names {wanted}")
        for name, values in state.items():
            if bool(values.isnan().any()):
                raise PlanError(f"{self.scorer.name} accumulated NaN as {name!r} in layer {o.layer}")
        return held._replace(state={name: values.float() for name, values in state.items()})

    @staticmethod
    def _fold(
        folder: Folder, extent: Extent, held: Sequence[Held], kept: Sequence[Tensor], scores: list[Tensor]
    ) -> int:
        """Write what the folder makes of every head into the new extent; returns the most bytes in transit for one."""
        block, most = extent.block, 0
        assert isinstance(block, DenseBlock), "what stays is fresh and not packed yet"
        heads = [(k[h], v[h], p[h]) for _, k, v, p, _ in held for h in range(k.shape[0])]
        for head, (whole, index, its) in enumerate(zip(heads, kept, scores, strict=True)):
            if not index.numel():
                continue  # pruned
            gone = torch.ones(its.numel(), dtype=torch.bool, device=its.device)
            gone[index] = False
            stays = Entries(*(t[index] for t in (*whole, its)))
            goes = Entries(*(t[gone] for t in (*whole, its)))
            folded = folder.fold(stays, goes)
            shapes = [tuple(t.shape) for t in (folded.keys, folded.values)]
            wanted = [tuple(t.shape) for t in (stays.keys, stays.values)]
            if shapes != wanted or not torch.equal(folded.positions, stays.positions):
                raise PlanError(f"{folder.name} made {shapes} of {wanted}; a folder returns the entries that were kept")
            span = slice(extent.offsets[head], extent.offsets[head + 1])
            block.keys[span], block.values[span] = folded.keys.to(block.keys), folded.values.to(block.values)
            most = max(most, sum(t.nbytes for t in (*stays[:2], *goes[:2])))
        return most

    def _kept(
        self, observed: list[Observation], scored: list[Tensor], dead: Sequence[bool], total: int
    ) -> list[Tensor]:
        """-> per head: which entries stay, ascending; none of one that is `dead`. Empties `scored`.

        In layerwise order N is the whole text: what is no longer needed is let go at once, so that the peak is one
        layer and not its scores.
        """
        guarded, floors = [], []
        for o, no in zip(observed, dead, strict=True):
            its = scored.pop(0)
            masked, its = (its, [0]) if no else self._guarded(o, its)
            guarded.append(masked)
            floors.extend(its)
        scores = [head for group in guarded for head in group]
        padded = guarded[0] if len(guarded) == 1 else pad_sequence(scores, batch_first=True, padding_value=-torch.inf)
        counts = self.allocator.allocate(padded, observed, total)
        del padded
        for o in observed:
            o.memo.clear()
        if counts.shape != (len(scores),) or int(counts.sum()) > total:
            wrong = f"{counts.tolist()}, {int(counts.sum())} in all"
            raise PlanError(
                f"{self.allocator.name} allotted {wrong}, to {len(scores)} heads that may hold {total} together"
            )
        wanted = _with_floors([int(count) for count in counts.tolist()], floors, total)
        return [keep(score, count) for score, count in zip(scores, wanted, strict=True)]

    def _scores(self, o: Observation) -> Tensor:
        """-> [H, N] float32, as the scorer gives them."""
        scores = self.scorer.score(o).float()
        if scores.shape != o.positions.shape:
            wrong = f"{tuple(scores.shape)} for entries {tuple(o.positions.shape)}"
            raise PlanError(f"{self.scorer.name} scored {wrong}; a scorer returns [H, N]")
        if bool(scores.isnan().any()):
            raise PlanError(f"{self.scorer.name} scored NaN in layer {o.layer}; every entry needs a number")
        return scores

    def _guarded(self, o: Observation, scores: Tensor) -> tuple[Tensor, list[int]]:
        """-> scores [H, N] with +inf where protected, and how many of each head are."""
        sinks, recent = self.scorer.protects()
        guard = (o.positions < sinks) | (o.positions >= o.seen - recent)
        return scores.masked_fill(guard, torch.inf), guard.sum(1).tolist()


def _check_floor(plan: Plan, scorer: Scorer, entries: int) -> None:
    if entries < scorer.floor:
        sinks, recent = scorer.protects()
        raise BudgetError(
            f"{scorer.name} with budget {plan.budget} comes to {entries} entries per head here, below its floor of "
            f"{scorer.floor} ({sinks} attention sinks and the {recent} newest tokens always stay). "
            f"Give a budget of at least {scorer.floor}."
        )


def _shares(allocator: Allocator, scorer: Scorer, entries: int, layout: ModelLayout, tokens: int) -> dict[int, int]:
    """-> what each full-attention layer may hold, checked against the allocator's contract."""
    full = {index: layer.heads for index, layer in enumerate(layout.layers) if layer.window is None}
    heads = list(full.values())
    shares = allocator.shares(entries, heads, scorer.floor, tokens)
    spent = sum(share * count for share, count in zip(shares, heads, strict=False))
    if len(shares) != len(heads) or min(shares, default=scorer.floor) < scorer.floor or spent > entries * sum(heads):
        raise PlanError(
            f"{allocator.name} shared out {shares} over {len(heads)} layers of {heads} heads, which may hold {entries} "
            f"entries per head on average and {scorer.floor} at least"
        )
    return dict(zip(full, shares, strict=True))


def _most_bytes(plan: Plan, shares: Mapping[int, int], layout: ModelLayout, tokens: int) -> int:
    """Bytes of KV after `tokens` tokens at most, however unevenly the heads of a layer share what it holds."""
    total, store, state = layout.size_of(plan, tokens)(0), plan.get("store"), state_bytes(plan)
    for index, share in shares.items():
        layer, count = layout.layers[index], min(share, tokens)
        total += count * layer.heads * (4 + state)
        total += (
            _most_packed(store, count, layer, layout.dtype)
            if isinstance(store, Store)
            else count * layer.heads * layer.entry_bytes(layout.dtype)
        )
    return total


def _most_packed(store: Store, count: int, layer: LayerLayout, dtype: torch.dtype) -> int:
    """Groups stay short most often where all heads but one hold a single packed entry."""
    total = layer.heads * count
    dense = min(total, layer.heads * store.keeps_back())
    longest = max(1, total - dense - layer.heads + 1)
    one, rest = (store.nbytes(n, 1, layer.head_size, layer.value_size, dtype) for n in (1, longest))
    return dense * layer.entry_bytes(dtype) + (layer.heads - 1) * one + rest


def _with_floors(counts: list[int], floors: list[int], total: int) -> list[int]:
    """Heads below their floor are raised to it, at the cost of the others in proportion to what those have to spare."""
    raised = [max(count, floor) for count, floor in zip(counts, floors, strict=True)]
    excess = sum(raised) - total
    if excess <= 0:
        return raised
    spare = [count - floor for count, floor in zip(raised, floors, strict=True)]
    all_spare = sum(spare)
    left = [s - excess * s // all_spare for s in spare]
    over = sum(floors) + sum(left) - total  # less than one per head: rounding
    for head in sorted(range(len(left)), key=lambda h: -left[h])[:over]:
        left[head] -= 1
    return [floor + more for floor, more in zip(floors, left, strict=True)]


def _generator(plan_hash: str, layer: int, head: int, seen: int) -> torch.Generator:
    """Seeded by what is decided, not by what was decided before: the same in any batch, fork or process."""
    digest = hashlib.sha256(f"{plan_hash}/{layer}/{head}/{seen}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
