"""A context: what is left of documents after reading, to be asked many times."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from torch import Tensor

from farspan.answer import Answer, LayerView, ReadCost, Scored, Timings, Usage
from farspan.asking import Asking, Stream
from farspan.cache import SequenceCache
from farspan.errors import PlanError, UsageError
from farspan.plan import Plan
from farspan.runtime.dropping import drop, token_mask
from farspan.runtime.fetching import Fetching, refetch
from farspan.runtime.likelihood import Fed, score
from farspan.runtime.packing import Packing
from farspan.runtime.positions import PositionSpec
from farspan.text import Asked, Document, Segment, TokenMap

if TYPE_CHECKING:
    from farspan.model import Model
    from farspan.text.asked import Kind


@dataclass(frozen=True, eq=False)
class Context:
    """What is left of documents after reading: a value that is asked, forked, appended to, saved and opened.

    Made by `Model.read` and `Model.open`. Asking never changes it; each answer carries the longer context.
    """

    model: Model
    plan: Plan
    positions: PositionSpec = field(repr=False)
    tokens: TokenMap = field(repr=False)
    cost: ReadCost
    _cache: SequenceCache = field(repr=False)
    _unfed: int | None = field(default=None, repr=False)
    """The last token of the newest answer, chosen but not yet fed."""
    _turns: int = field(default=0, repr=False)

    # -- what it is ----------------------------------------------------------------------------------------------

    @property
    def seen(self) -> int:
        """Tokens fed: template prefix, documents, and the turns so far."""
        return self._cache.seen

    @property
    def next_position(self) -> int:
        """Where the next token stands."""
        return self._cache.next_position

    @property
    def held(self) -> float:
        """Entries held per key-value head, averaged over the layers with full attention (all layers if none has)."""
        layout = self.model.layout
        layers = [i for i, w in enumerate(layout.windows) if w is None] or list(range(len(layout.layers)))
        counts = [n for i in layers for n in self._cache.layers[i].held(layout.layers[i].heads)]
        return sum(counts) / len(counts)

    @property
    def held_bytes(self) -> int:
        """Bytes of KV storage allocated, positions and scales included."""
        return self._cache.nbytes

    @property
    def elsewhere_bytes(self) -> int:
        """Bytes of KV that `offload` holds on disk or in host memory; not among `held_bytes`."""
        return self._cache.elsewhere_bytes

    @property
    def full_bytes(self) -> int:
        """The yardstick: bytes of transformers' DynamicCache after the same tokens."""
        return self.model.layout.full_bytes(self.seen)

    @property
    def token_ids(self) -> Tensor:
        """[seen] int32: every token fed, in order."""
        return self._cache.ids().clone()

    @property
    def beyond_trained(self) -> bool:
        """True if the next token stands beyond the length the model was trained on."""
        trained = self.model.trained_length
        return trained is not None and self.next_position >= trained

    @property
    def settled_plan(self) -> Plan:
        """The plan as it was carried out: with the store that came of a budget, where that chooses the precision."""
        return self.model.layout.settled(self.plan, self.cost.seen)

    def inspect(self) -> list[LayerView]:
        """Which tokens are held, per layer and head."""
        layout = self.model.layout
        return [
            LayerView(i, layer.window, tuple(layer.positions(h) for h in range(layout.layers[i].heads)), layer.nbytes)
            for i, layer in enumerate(self._cache.layers)
        ]

    def locate(self, token: int) -> Segment | None:
        """Where a token of the read comes from; None for a template's tokens, separators, questions and answers."""
        return self.tokens.locate(token)

    # -- asking --------------------------------------------------------------------------------------------------

    @overload
    def ask(self, question: str | Asked, **options: Any) -> Answer: ...
    @overload
    def ask(self, question: list[str] | list[Asked] | tuple[str | Asked, ...], **options: Any) -> list[Answer]: ...

    def ask(self, question: str | Asked | Sequence[str | Asked], **options: Any) -> Answer | list[Answer]:
        """Answer one question, or several independent ones in one batch that shares this context.

        Options: `max_new_tokens` (256; one for all, or one for each), `stop` (a string or several), `prefix` (how the
        reply begins; not part of the answer; one for all, or one for each), `kind` ("question", or "continuation": the
        text follows the context word for word, and the model goes on), `seed`, `generation_config` (transformers'
        GenerationConfig; greedy without one), `logits_processor` (a LogitsProcessorList) and `recall` (True: measure
        what a plan that fetches covers of full attention, see `Answer.recall`; reads everything once more). An `Asked`
        brings its own prefix and kind. Raises UsageError for an empty question, CapacityError for one that does not
        fit, OptionError for an option that is not honoured.
        """
        questions = [question] if isinstance(question, (str, Asked)) else list(question)
        if not questions:
            return []
        answers = Asking([self] * len(questions), questions, options).decode()
        return answers[0] if isinstance(question, (str, Asked)) else answers

    @overload
    def score(self, text: str, *, after: str = "", kind: Kind = "continuation", prefix: str = "") -> Scored: ...
    @overload
    def score(
        self, text: list[str] | tuple[str, ...], *, after: str = "", kind: Kind = "continuation", prefix: str = ""
    ) -> list[Scored]: ...

    def score(
        self, text: str | list[str] | tuple[str, ...], *, after: str = "", kind: Kind = "continuation", prefix: str = ""
    ) -> Scored | list[Scored]:
        """How likely the model finds a text after this context, or each of several in one batch; nothing is generated.

        The text follows `after`, which is fed and not judged, word for word; with `kind="question"` it is judged as the
        reply to the question `after`, behind `prefix`. The context is left as it is. Raises UsageError for an empty
        text, CapacityError for one that does not fit.
        """
        texts = [text] if isinstance(text, str) else list(text)
        asked = Asked(after, kind=kind, prefix=prefix)
        turns = [self.model.prompts.scored(asked, each, last=self._unfed, eos=self.model.eos) for each in texts]
        for ids, _ in turns:
            self.positions.check(self.next_position + ids.numel(), f"the text to score ({ids.numel()} tokens)")
        fed = [Fed(self._cache.fork(), ids, self._packing(), count, Fetching.of(self.plan)) for ids, count in turns]
        judged = score(self.model.runtime(self.positions), fed)
        found = [_scored(each, f, j) for each, f, j in zip(texts, fed, judged, strict=True)]
        return found[0] if isinstance(text, str) else found

    def stream(self, question: str | Asked, **options: Any) -> Stream:
        """Answer one question piece by piece: iterate for text, then take `.answer`."""
        return Stream(Asking([self], [question], options))

    def inputs(self, question: str | Asked | Sequence[str | Asked]) -> dict[str, Any]:
        """Keyword arguments for plain transformers: `farspan.prepare(model).generate(**context.inputs(question))`.

        Several questions make as many rows, padded on the left; rows of several contexts come from `Model.inputs`. The
        cache among them holds forks of this context; generating does not change the context.
        """
        questions = [question] if isinstance(question, str | Asked) else list(question)
        return self.model.inputs([self] * len(questions), questions)

    def _question(self, question: str | Asked) -> Tensor:
        ids = self.model.prompts.question(question, last=self._unfed, eos=self.model.eos)
        self.positions.check(self.next_position + ids.numel() + 1, f"the question ({ids.numel()} tokens)")
        return ids

    def _packing(self) -> Packing | None:
        """For one continuation of this context."""
        return Packing.of(self.settled_plan, self.model.runtime(self.positions).rotations)

    # -- values from values --------------------------------------------------------------------------------------

    def fork(self) -> Context:
        """An independent copy that shares all storage (which is immutable)."""
        return self._with(self._cache.fork())

    def under(self, plan: str | Plan) -> Context:
        """The same entries, asked under a plan that would have read alike -> a new context: it fetches otherwise, or
        not at all.

        What was read is shared; an index is made where the plan's method wants one, which `cost` includes. Raises
        PlanError for a plan that reads in another way, PlanDoesNotApply.
        """
        chosen = Plan.parse(plan)
        self.model.check(chosen)
        if chosen.reading != self.plan.reading:
            raise PlanError(
                f"this was read under '{self.plan}', and '{chosen}' reads in another way: plans that read alike differ "
                "in a method that fetches for questions alone (read=false). Read the text again"
            )
        began, cache = time.perf_counter(), self._cache.fork()
        refetch(cache, Fetching.of(chosen))
        cost = replace(
            self.cost,
            seconds=self.cost.seconds + time.perf_counter() - began,
            peak_bytes=max(self.cost.peak_bytes, cache.nbytes),
            stated_peak_bytes=max(self.cost.stated_peak_bytes, cache.nbytes),
        )
        return replace(self._with(cache, cost=cost), plan=chosen)

    def drop(self, *spans: Segment | range | tuple[int, int]) -> Context:
        """Forget tokens that are done with (a finished turn, a tool's output) -> a new context; positions stay.

        Spans are ranges of the tokens seen, or Segments. Their entries go from all layers with full attention and the
        memory is freed once no other context holds them; layers with a sliding window forget by themselves. Raises
        UsageError for a span that was not seen, or where nothing would be left.
        """
        if not spans:
            raise UsageError("drop what? Give ranges of tokens, such as (start, stop), or Segments")
        cache = self._cache.fork()
        drop(cache, token_mask([_range(span) for span in spans], self.seen), self._packing())
        return self._with(cache)

    def append(self, documents: str | Path | Document | Sequence[str | Path | Document], **options: Any) -> Context:
        """Read more documents after these -> a new context; the plan's budget decides anew over old and new.

        Options as for `Model.read`: `probe`, `progress`.
        """
        return self.model.append(self, documents, **options)

    def save(self, path: str | os.PathLike[str], *, codec: str | None = None, level: int | None = None) -> Path:
        """Write a `.ctx` file, whole or not at all; raises StorageError if the disk refuses.

        `codec="cachegen"` writes entries in the model's dtype coded, in 0.4 to 0.2 of their bytes, not exactly:
        `level` 0 (nearest to the original) to 3 (smallest; default 1). Raises OptionError where that cannot be done.
        """
        return self.model.save(self, path, codec=codec, level=level)

    def _with(self, cache: SequenceCache, **changes: Any) -> Context:
        values = {
            "model": self.model,
            "plan": self.plan,
            "positions": self.positions,
            "tokens": self.tokens,
            "cost": self.cost,
        }
        rest = {"_unfed": self._unfed, "_turns": self._turns}
        return Context(**{**values, **rest, **changes}, _cache=cache)


def _range(span: Segment | range | tuple[int, int]) -> tuple[int, int]:
    match span:
        case Segment():
            return span.token_start, span.token_end
        case range() if span.step == 1:
            return span.start, span.stop
        case (int(start), int(stop)):
            return start, stop
    raise UsageError(f"{span!r} is no span of tokens; give (start, stop), a range without a step, or a Segment")


def _scored(text: str, fed: Fed, judged: Tensor) -> Scored:
    logprobs, first = judged.T.tolist() if len(judged) else ([], [])
    ids = fed.ids[fed.ids.numel() - fed.scored :].tolist()
    return Scored(text, tuple(ids), tuple(logprobs), tuple(flag == 1.0 for flag in first))


__all__ = ["Answer", "Context", "LayerView", "ReadCost", "Scored", "Stream", "Timings", "Usage"]
