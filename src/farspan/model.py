"""A model, and what it lets us see."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from farspan.answer import Answer, Foreseen
from farspan.asking import Asking
from farspan.cache import file as context_file
from farspan.cache.codec import recoder
from farspan.composition import compose, foresee_in_pieces, pieces_of, read_in_pieces
from farspan.context import Context, ReadCost
from farspan.errors import CapacityError, ForeignContext, OptionError, PlanDoesNotApply, UsageError
from farspan.heads import HeadProfile
from farspan.methods.compress._skimming import Skimmer
from farspan.methods.compress.base import Compressor
from farspan.methods.positions.base import Positions
from farspan.methods.positions.longrope import Longrope
from farspan.methods.prefill.coretokens import Coretokens
from farspan.methods.prefill.moa import Moa
from farspan.methods.retain._profiled import Profiled
from farspan.methods.retain.base import Scorer
from farspan.methods.store.base import Place
from farspan.plan import Plan
from farspan.profiling import LENGTH, TEXTS, Hook, make_profile
from farspan.runtime import hf_fingerprint, hf_sampling, hf_weights
from farspan.runtime.answering import Answering
from farspan.runtime.feed import Part, checked, joined, to_read
from farspan.runtime.fetching import Fetching
from farspan.runtime.hf import Prepared, Runtime
from farspan.runtime.hf_cache import FarspanCache
from farspan.runtime.hf_inspect import prepare_model
from farspan.runtime.hf_prompts import Prompts
from farspan.runtime.kinds import kinds_of
from farspan.runtime.layout import ModelLayout
from farspan.runtime.packing import turn_of
from farspan.runtime.padding import side_by_side
from farspan.runtime.positions import PositionSpec, common
from farspan.runtime.reader import Job, ProgressHook, Report, read, stated_peak
from farspan.runtime.skimming import check_skimmer, skim
from farspan.runtime.step import Row
from farspan.text import Asked, Document, TokenMap, as_documents, tokenize

Documents = str | Path | Document | Sequence[str | Path | Document]
ROOM = 4096  # positions decided beyond the tokens read, for questions and answers


class Model:
    """A causal language model with its tokenizer. Made by `farspan.load`.

    `access` says what methods may ask of it: a local transformers model gives `internals`.
    """

    access: Literal["internals"] = "internals"

    def __init__(self, hf_model: Any, tokenizer: Any, *, path: str, weights: str | None = None) -> None:
        self.hf, self.tokenizer, self.path, self.weights = hf_model, tokenizer, path, weights
        self._prepared: Prepared = prepare_model(hf_model)
        self.prompts = Prompts(tokenizer)
        if weights is not None:
            self.fingerprint  # noqa: B018 - of the weights as they came
            hf_weights.transform(self._prepared.layers, weights)

    def __repr__(self) -> str:
        form = "" if self.weights is None else f", weights {self.weights}"
        return f"Model({self.path!r}, {type(self.hf).__name__}, {str(self.hf.dtype).removeprefix('torch.')}{form})"

    @property
    def layout(self) -> ModelLayout:
        """Layers, heads, sizes, windows."""
        return self._prepared.layout

    @property
    def trained_length(self) -> int | None:
        """Tokens the model was built for, where it says so."""
        return self._prepared.trained_length

    @cached_property
    def eos(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return self.sampling({}).eos

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """Hashes of configuration, tokenizer and weights: a context belongs to one model."""
        return hf_fingerprint.fingerprint(self.hf, self.tokenizer)

    # -- reading -------------------------------------------------------------------------------------------------

    def read(
        self,
        documents: Documents,
        plan: str | Plan | None = None,
        *,
        probe: str | Asked | None = None,
        length: int | None = None,
        progress: ProgressHook | None = None,
    ) -> Context:
        """Read documents once, keeping what the plan keeps.

        A `str` is text itself, a Path a file. `probe` lends a question as observation window, so that what stays is
        what matters to it (query-aware reading; an `Asked` brings its kind and prefix); without it reading is
        query-agnostic. `length` is how many positions to decide for (default: tokens read + 4096). `progress` is
        called with a Progress after every chunk.
        Raises DocumentError, PlanError, BudgetError, PlanDoesNotApply or CapacityError; an interrupt leaves nothing.
        """
        return self.read_batch([documents], plan, probes=[probe], length=length, progress=progress)[0]

    def read_batch(
        self,
        batch: Sequence[Documents],
        plan: str | Plan | None = None,
        *,
        probes: Sequence[str | Asked | None] | None = None,
        length: int | None = None,
        progress: ProgressHook | None = None,
        trace: bool = False,
    ) -> list[Context]:
        """Read several sets of documents side by side, packed without padding -> a context each, equal to those of
        single reads; where positions are decided differently, one after the other. `trace` records every decision, for
        the replay oracle.
        """
        chosen = Plan.parse(plan)
        self.check(chosen)
        probes = [None] * len(batch) if probes is None else list(probes)
        if len(probes) != len(batch):
            raise UsageError(f"{len(probes)} probes for {len(batch)} sets of documents; give one each, or None")
        prefix = self.prompts.prefix()
        parts = [self._parts(each, chosen, probe) for each, probe in zip(batch, probes, strict=True)]
        fed = [joined(p, prefix, self.prompts.separator()) for p in parts]
        jobs = [
            Job(self.layout.empty(trace=trace), each.ids, chosen, self._probe(probe), each.nontext, self._kinds(chosen))
            for each, probe in zip(fed, probes, strict=True)
        ]
        if chosen.get("parallel") is not None:
            decide = partial(self._positions, chosen, length)
            pairs = zip(fed, jobs, strict=True)
            return [read_in_pieces(self, each.tokens, job, decide, progress) for each, job in pairs]
        specs = self._specs(chosen, length, [each.ids.numel() for each in fed])
        cost: dict[int, ReadCost] = {}
        for positions in dict.fromkeys(specs):
            together = [i for i, spec in enumerate(specs) if spec is positions]
            report = read(self.runtime(positions), [jobs[i] for i in together], progress)
            cost |= {i: _cost(report, jobs[i], pairs) for i, pairs in zip(together, report.pairs, strict=True)}
        return [
            Context(self, chosen, specs[i], each.tokens, cost[i], job.cache)
            for i, (each, job) in enumerate(zip(fed, jobs, strict=True))
        ]

    def ask_batch(self, contexts: Sequence[Context], questions: Sequence[str | Asked], **options: Any) -> list[Answer]:
        """One question for each of several contexts of this model, decoded together -> an answer each.

        Options as for `Context.ask`. The answers are those of single asks, but for the last bits of sums, which can
        turn a choice that is all but a tie. Raises UsageError where the numbers differ, ForeignContext for another
        model's context, CapacityError for contexts whose positions were decided for different lengths that matter.
        """
        if len(contexts) != len(questions):
            raise UsageError(f"{len(contexts)} contexts and {len(questions)} questions; give one question for each")
        for context in contexts:
            if context.model is not self:
                raise ForeignContext(f"one of these contexts was read with {context.model}; ask it there")
        return Asking(contexts, questions, options).decode() if contexts else []

    def append(
        self,
        context: Context,
        documents: Documents,
        *,
        probe: str | Asked | None = None,
        progress: ProgressHook | None = None,
    ) -> Context:
        """See `Context.append`."""
        parts = self._parts(documents, context.plan, probe)
        before = self.prompts.more(last=context._unfed, eos=self.eos)
        ids, tokens, nontext = joined(parts, before, self.prompts.separator(), context.tokens, context.seen)
        context.positions.check(context.next_position + ids.numel() + 1, f"appending {ids.numel()} tokens")
        job = Job(context._cache.fork(), ids, context.plan, self._probe(probe), nontext, self._kinds(context.plan))
        report = read(self.runtime(context.positions), [job], progress)
        cost = _cost(report, job, report.pairs[0])
        return context._with(job.cache, tokens=tokens, cost=cost, _unfed=None)

    def compose(self, contexts: Sequence[Context], plan: str | Plan | None = None) -> Context:
        """Contexts that were read apart, perhaps opened from files, as one that is answered together.

        `plan` names one method of the family `parallel` (default `concat`). See `farspan.composition`. Raises
        UsageError, PlanError, ForeignContext, CapacityError, PlanDoesNotApply.
        """
        return compose(self, contexts, plan, ROOM)

    def check(self, plan: Plan) -> None:
        """Raise PlanDoesNotApply for a plan that this model cannot carry out."""
        for method in plan.methods:
            if isinstance(method, Profiled | Longrope | Moa | Coretokens):
                method.load().belongs(self.fingerprint, self.path)
        self.layout.check(plan)
        if isinstance(skimmer := plan.get("compress"), Skimmer):
            check_skimmer(skimmer, self.layout)
        if (method := _method(plan)) is not None:
            self._prepared.places.check(method, self.layout)
        place = plan.get("place")
        reason = place.applies_on(self.hf.device) if isinstance(place, Place) else None
        if place is not None and reason is not None:
            raise PlanDoesNotApply(f"{place.name} does not apply: {reason}")

    def foresee(self, tokens: int, plan: str | Plan | None = None, *, probe: int = 0) -> Foreseen:
        """What reading `tokens` tokens (with a probe of `probe` tokens) would need; nothing is read.

        Raises as `read` would: PlanDoesNotApply, BudgetError, CapacityError.
        """
        chosen = Plan.parse(plan)
        self.check(chosen)
        if (compressor := chosen.get("compress")) is not None:
            assert isinstance(compressor, Compressor)
            tokens = compressor.reads(tokens)
        lent = torch.zeros(probe, dtype=torch.int64) if probe else None
        job = Job(self.layout.empty(), torch.zeros(tokens, dtype=torch.int64), chosen, lent)
        if chosen.get("parallel") is not None:
            return foresee_in_pieces(self, job, partial(self._positions, chosen, None))
        peak = stated_peak(self.runtime(self._positions(chosen, None, tokens)), job)
        entries = tokens if chosen.budget is None else self.layout.budget(chosen, chosen.budget, tokens)
        return Foreseen(tokens, peak, self.layout.size_of(chosen, tokens)(min(tokens, entries)))

    def _parts(self, documents: Documents, plan: Plan, question: str | Asked | None) -> list[Part]:
        whole = [(d, tokenize(d.text, self.tokenizer)) for d in as_documents(documents)]
        skimmer = plan.get("compress")
        if not isinstance(skimmer, Skimmer):
            return to_read(whole, plan, question)
        body = lambda tokens: self.runtime(self._positions(plan, None, tokens))  # noqa: E731
        return skim(checked(whole), skimmer, self.prompts.prefix(), self._probe(question), body)

    def _probe(self, question: str | Asked | None) -> Tensor | None:
        return None if question is None else self.prompts.question(question, last=None, eos=self.eos)

    def _kinds(self, plan: Plan) -> Tensor | None:
        scorer = plan.get("score")
        return self._vocabulary_kinds if isinstance(scorer, Scorer) and scorer.knows_kinds else None

    @cached_property
    def _vocabulary_kinds(self) -> Tensor:
        """[V] uint8: which kind each token is."""
        size = max(len(self.tokenizer), self.hf.get_input_embeddings().weight.shape[0])
        return kinds_of(self.tokenizer, size)

    def _positions(self, plan: Plan, length: int | None, tokens: int) -> PositionSpec:
        if length is not None and length < tokens:
            raise CapacityError(
                f"length={length} is less than the {tokens} tokens to read; leave it out for {tokens + ROOM}"
            )
        positions = self._prepared.positions(length or tokens + ROOM, _method(plan))
        positions.check(tokens + 1, f"reading {tokens} tokens")
        return positions

    def _specs(self, plan: Plan, length: int | None, tokens: Sequence[int]) -> list[PositionSpec]:
        """For each of several texts of so many tokens; those that are placed alike have one, that of the longest."""
        specs: dict[int, PositionSpec] = {}
        for count in sorted(set(tokens), reverse=True):
            made = self._positions(plan, length, count)
            specs[count] = next((spec for spec in specs.values() if spec.agrees(made)), made)
        return [specs[count] for count in tokens]

    def profile(
        self, *, length: int = LENGTH, texts: int = TEXTS, seed: int = 0, progress: Hook | None = None
    ) -> HeadProfile:
        """Measure which attention heads retrieve -> a head profile, to be saved and named in plans such as `headkv`.

        See `farspan.profiling.make_profile`. Raises OptionError, CapacityError.
        """
        return make_profile(self, length=length, texts=texts, seed=seed, progress=progress)

    # -- layers --------------------------------------------------------------------------------------------------

    def runtime(self, positions: PositionSpec) -> Runtime:
        """The model's body with one context's positions: `forward`, `embed`, `run_layers`, `logits`."""
        return Runtime(self._prepared, positions)

    def sampling(self, options: dict[str, Any]) -> hf_sampling.Sampling:
        """Resolve the options of `ask`; raises OptionError for unknown ones."""
        allowed = ("max_new_tokens", "stop", "seed", "generation_config", "logits_processor", "recall")
        for name in options:
            if name not in allowed:
                from farspan.errors import did_you_mean

                raise OptionError(
                    f"ask has no option {name!r}; allowed: {', '.join(allowed)}.{did_you_mean(name, allowed)}"
                )
        rest = {name: value for name, value in options.items() if name != "generation_config"}
        return hf_sampling.sampling(
            self.hf.generation_config,
            options.get("generation_config"),
            eos_token_id=self.tokenizer.eos_token_id,
            **rest,
        )

    def inputs(self, contexts: Sequence[Context], questions: Sequence[str | Asked]) -> dict[str, Any]:
        """Keyword arguments for plain transformers' `generate`: one row per context and question, padded on the left.

        The cache among them holds forks; generating changes no context. Raises UsageError where the numbers differ,
        CapacityError for contexts whose positions were decided for different lengths that matter.
        """
        if len(contexts) != len(questions) or not contexts:
            raise UsageError(f"{len(contexts)} contexts and {len(questions)} questions; give one of each for every row")
        positions = common([context.positions for context in contexts])
        asked = [context._question(question) for context, question in zip(contexts, questions, strict=True)]
        sequences = [context._cache.fork() for context in contexts]
        rotations = self.runtime(positions).rotations
        packing = [context._packing() for context in contexts]
        answering = [Answering.of(c.plan, s, rotations) for c, s in zip(contexts, sequences, strict=True)]

        fetching = [Fetching.of(context.plan) for context in contexts]

        def row(index: int, tokens: int) -> Row:
            its = sequences[index]
            return Row(its, tokens, packer=packing[index], answering=answering[index], fetching=fetching[index])

        past = FarspanCache.for_generate(len(self.layout.layers), positions, sequences, row)
        made = side_by_side(sequences, asked, self.tokenizer.pad_token_id or 0)
        return {**{name: tensor.to(self.hf.device) for name, tensor in made.items()}, "past_key_values": past}

    # -- files ---------------------------------------------------------------------------------------------------

    def save(
        self, context: Context, path: str | os.PathLike[str], *, codec: str | None = None, level: int | None = None
    ) -> Path:
        """See `Context.save`."""
        recode = recoder(codec, level, context._cache)
        manifest = {
            "model": self.path,
            "dtype": str(self.hf.dtype).removeprefix("torch."),
            "weights": self.weights,
            "fingerprint": self.fingerprint,
            "plan": context.plan.to_json(),
            "plan_hash": context.plan.hash,
            "positions": context.positions.describe(),
            "tokens": context.tokens.to_json(),
            "cost": asdict(context.cost),
            "unfed": context._unfed,
            "turns": context._turns,
            "pieces": [] if context._cache.pieces is None else context._cache.pieces.ranges,
            "full_bytes": context.full_bytes,
        }
        spans = torch.from_numpy(np.ascontiguousarray(context.tokens.spans()))
        context_file.save(Path(path), context._cache, manifest, {"spans": spans}, recode=recode)
        return Path(path)

    def open(self, path: str | os.PathLike[str]) -> Context:
        """Open a context that was read with this model. The manifest is checked now, entries when they are first
        needed. Raises ContextFileError (damaged, newer, no context) or ForeignContext (another model's).
        """
        manifest = context_file.peek(Path(path))
        if manifest["fingerprint"]["whole"] != self.fingerprint["whole"]:
            how = hf_fingerprint.difference(manifest["fingerprint"], self.fingerprint)
            raise ForeignContext(
                f"{os.fspath(path)} was read with {manifest['model']!r}; {self.path!r} is another model: {how}"
            )
        plan = Plan.from_json(manifest["plan"])
        positions = self._prepared.places.restored(manifest["positions"])
        turn = partial(turn_of, self.runtime(positions).rotations)
        keep = plan.get("place") is None
        opened = context_file.load(Path(path), device=str(self.hf.device), keep=keep, turn=turn)
        tokens = TokenMap.from_json(manifest["tokens"], opened.arrays["spans"].numpy())
        opened.cache.pieces = pieces_of(plan, manifest.get("pieces", []))
        return Context(
            self,
            plan,
            positions,
            tokens,
            ReadCost(**manifest["cost"]),
            opened.cache,
            _unfed=manifest["unfed"],
            _turns=manifest["turns"],
        )


def _method(plan: Plan) -> Positions | None:
    """The plan's positions method."""
    method = plan.get("positions")
    assert method is None or isinstance(method, Positions)
    return method


def _cost(report: Report, job: Job, pairs: float | None) -> ReadCost:
    seen = job.cache.seen
    return ReadCost(report.seconds, job.ids.numel(), report.peak_bytes, report.stated_peak_bytes, seen, pairs=pairs)
