"""A model on this machine, measured: a text is read under a plan and asked, and what that took is written down."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from copy import copy
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor

from farspan.answer import Answer, Scored
from farspan.context import Context
from farspan.errors import FarspanError, PlanDoesNotApply
from farspan.measure.counter import ModelCounter, asked_of
from farspan.measure.evidence import Fed, Holdings, fed_stretches, gold_fed
from farspan.measure.outcome import Outcome, hopeless, message_of
from farspan.measure.record import Mode
from farspan.methods.fetch.base import Fetch
from farspan.model import Model
from farspan.plan import Plan
from farspan.tasks.base import Passage, Question
from farspan.text import Asked

BATCH = 32  # questions asked at once, each on a fork
BLIND = {"order", "store", "place", "positions", "prefill", "fetch"}  # slots that read alike whatever the probe


class LocalModel:
    """A `farspan.Model` as the runner sees it. With `recall`, what plans that fetch cover of full attention is measured
    too, at every step: that reads everything once more, and times of answers show it.
    """

    def __init__(self, model: Model, *, recall: bool = False) -> None:
        self.model, self.recall = model, recall
        self.counter = ModelCounter(model)

    def describe(self) -> dict[str, Any]:
        """See Subject."""
        template = getattr(self.model.tokenizer, "chat_template", None)
        return {
            "kind": "local",
            "model": self.model.path,
            "access": self.model.access,
            "fingerprint": dict(self.model.fingerprint),
            "tokenizer": self.model.fingerprint["tokenizer"],
            "chat_template": _hash(template) if template else None,
            "dtype": str(self.model.hf.dtype).removeprefix("torch."),
            "trained_length": self.model.trained_length,
            "decoding": "greedy",
            **({"recall": True} if self.recall else {}),
            **({"weights": self.model.weights} if self.model.weights else {}),
        }

    def environment(self) -> dict[str, Any]:
        """See Subject."""
        return {"device": str(self.model.hf.device), "threads": torch.get_num_threads()}

    def notes(self) -> list[str]:
        """See Subject."""
        told = "recall was measured: a step of a plan that fetches reads everything once more, and its times show it"
        notes = [told] if self.recall else []
        if not self.model.prompts.templated:
            notes.append(
                "the tokenizer has no chat template: questions are put as 'Question: ... Answer:' after the text"
            )
        return notes

    def check(self, plans: Sequence[Plan]) -> None:
        """See Subject."""
        for plan in plans:
            try:
                self.model.check(plan)
            except PlanDoesNotApply as error:
                raise PlanDoesNotApply(f"the plan {str(plan)!r} does not apply to {self.model.path}: {error}") from None

    def answer(self, passages: Sequence[Passage], plans: Sequence[Plan], mode: Mode) -> Iterator[list[list[Outcome]]]:
        """See Subject. Each is read once for all its questions and all the plans; in mode `aware` once for each probe,
        where the plan has anything that a probe could change. As many readings as passages are there at a time, and
        answered together.
        """
        alike = mode == "agnostic" or reads_alike(plans[0])
        wanted = [
            _Wanted(number, probe, asked)
            for number, passage in enumerate(passages)
            for probe, asked in ([(None, range(len(passage.questions)))] if alike else by_probe(passage.questions))
        ]
        found: list[dict[_At, Outcome]] = [{} for _ in plans]
        starts = range(0, max(1, len(wanted)), max(1, len(passages)))
        for start in starts:
            puts, failed = self._read(passages, wanted[start : start + len(passages)], plans)
            for plan, its in zip(plans, found, strict=True):
                its |= failed | self._answered(puts, plan)
                if start == starts[-1]:
                    yield [[its[p, q] for q in range(len(passage.questions))] for p, passage in enumerate(passages)]

    def _read(
        self, passages: Sequence[Passage], wanted: Sequence[_Wanted], plans: Sequence[Plan]
    ) -> tuple[list[_Put], dict[_At, Outcome]]:
        """-> the questions of the readings that are wanted, and what came of those that could not be read."""
        plan = plans[0] if len(plans) == 1 else _reading_only(plans[0])
        puts: list[_Put] = []
        failed: dict[_At, Outcome] = {}
        for each in wanted:
            passage, at = passages[each.passage], [(each.passage, number) for number in each.questions]
            try:
                context = self.model.read(passage.context, plan, probe=each.probe)
            except (FarspanError, MemoryError, torch.OutOfMemoryError) as error:
                failed |= zip(at, hopeless(len(at), error), strict=True)
                continue
            reading = _Reading(context, passage, self.counter)
            puts += [_Put(reading, passage.questions[number], (p, number)) for p, number in at]
        return puts, failed

    def _answered(self, puts: Sequence[_Put], plan: Plan) -> dict[_At, Outcome]:
        """What the questions come to under one of the plans that the readings serve."""
        found: dict[_At, Outcome] = {}
        for batch in _batches(puts):
            try:
                under = {put.reading: put.reading.under(plan) for put in batch}
            except (FarspanError, MemoryError, torch.OutOfMemoryError) as error:
                found |= {put.at: put.reading.failed(put.question, error) for put in batch}
                continue
            outcomes = self._outcomes([put._replace(reading=under[put.reading]) for put in batch])
            found |= zip((put.at for put in batch), outcomes, strict=True)
        return found

    def _outcomes(self, batch: list[_Put]) -> list[Outcome]:
        """Ask them together; where that fails, one by one, so that each has its own error."""
        try:
            return self._asked(batch)
        except (FarspanError, MemoryError, torch.OutOfMemoryError) as error:
            if len(batch) == 1:
                return [batch[0].reading.failed(batch[0].question, error)]
            return [outcome for put in batch for outcome in self._outcomes([put])]

    def _asked(self, batch: list[_Put]) -> list[Outcome]:
        if batch[0].question.kind == "likelihood":
            return [put.reading.judged(put.question) for put in batch]
        asked = [asked_of(put.question) for put in batch]
        contexts, limits = zip(*((put.reading.context, put.question.max_new_tokens) for put in batch), strict=True)
        recall = self.recall and contexts[0].plan.get("fetch") is not None
        answers = self.model.ask_batch(contexts, asked, max_new_tokens=limits, recall=recall)
        return [put.reading.answered(put.question, answer) for put, answer in zip(batch, answers, strict=True)]


_At = tuple[int, int]  # the number of a passage, and of a question of it


class _Wanted(NamedTuple):
    """A reading: of which passage, with what lent as probe, and the numbers of the questions that it serves."""

    passage: int
    probe: Asked | None
    questions: Sequence[int]


class _Put(NamedTuple):
    """A question, put to a reading."""

    reading: _Reading
    question: Question
    at: _At


def reads_alike(plan: Plan) -> bool:
    """Whether a plan reads a text in the same way whatever the probe, so that one reading serves every question."""
    return BLIND.issuperset(method.slot for method in plan.methods)


def _reading_only(plan: Plan) -> Plan:
    """What reads for it and for all plans that read alike."""
    return Plan(tuple(method for method in plan.methods if method.reading() is not None))


def by_probe(questions: Sequence[Question]) -> list[tuple[Asked | None, list[int]]]:
    """What query-aware readings are given (None where that is nothing), and the numbers of the questions of each."""
    numbers: dict[Asked, list[int]] = {}
    for number, question in enumerate(questions):
        probe = Asked(question.probe) if question.probe else asked_of(question)
        numbers.setdefault(probe, []).append(number)
    return [(probe if probe.words else None, its) for probe, its in numbers.items()]


def _batches(puts: Sequence[_Put]) -> Iterator[list[_Put]]:
    """What can be asked together: all generated or all judged, and with the same angles."""
    alike: list[list[_Put]] = []
    for put in puts:
        judged, angles = put.question.kind == "likelihood", put.reading.context.positions
        for its in alike:
            if judged == (its[0].question.kind == "likelihood") and angles.agrees(its[0].reading.context.positions):
                its.append(put)
                break
        else:
            alike.append([put])
    for each in alike:
        yield from (each[i : i + BATCH] for i in range(0, len(each), BATCH))


class _Reading:
    """A context that was read for a passage, and what is true of all its questions."""

    def __init__(self, context: Context, passage: Passage, counter: ModelCounter) -> None:
        self.context, self.passage = context, passage
        self.latest: Context | None = None
        self.stretches: list[Fed] = fed_stretches(context)
        self.holdings = Holdings(context)
        whole, fed = counter.text(passage.context), len(self.holdings.tokens)
        self.truncated = context.plan.get("compress") is None and fed < whole
        self.full_bytes = context.model.layout.full_bytes(context.seen + whole - fed)  # of the text as it was given

    def under(self, plan: Plan) -> _Reading:
        """The same, asked under a plan that reads alike; one with the index of the plan before it takes that over."""
        if plan == self.context.plan:
            return self
        other = copy(self)
        source = self.context if self.latest is None or _index(self.latest.plan) != _index(plan) else self.latest
        other.context = self.latest = source.under(plan)
        return other

    def failed(self, question: Question, error: BaseException) -> Outcome:
        """What was read is known all the same."""
        return Outcome(error=message_of(error), **self._facts(question))

    def answered(self, question: Question, answer: Answer) -> Outcome:
        """A reply, and what it took."""
        usage, timings = answer.usage, answer.timings
        return Outcome(
            reply=answer.text,
            finish=answer.finish_reason,
            tokens=usage.seen + usage.question_tokens,
            reply_tokens=usage.answer_tokens,
            prompt_hash=_prompt_hash(answer.context.token_ids[: usage.seen + usage.question_tokens]),
            first_token_seconds=timings.first_token,
            seconds=timings.total,
            tokens_per_second=timings.tokens_per_second(usage.answer_tokens) or None,
            recall=None if answer.recall is None else tuple(round(layer.mass, 6) for layer in answer.recall),
            entries_read=fmean(layer.read for layer in answer.recall) if answer.recall else None,
            **self._facts(question),
        )

    def judged(self, question: Question) -> Outcome:
        """How likely the reference is."""
        words = asked_of(question)
        scored: Scored = self.context.score(
            question.references[0], after=words.text, kind=words.kind, prefix=words.prefix
        )
        if not scored.logprobs:
            reason = "the reference is one token, and nothing before it was left that it could be judged by"
            return Outcome(error=reason, **self._facts(question))
        model, count = self.context.model, len(scored.logprobs)
        ids, _ = model.prompts.scored(words, question.references[0], last=None, eos=model.eos)
        fed = torch.cat([self.context.token_ids, ids.to(torch.int32)])
        return Outcome(
            first_share=sum(scored.first) / count,
            nll=-sum(scored.logprobs) / count,
            scored_tokens=count,
            tokens=fed.numel(),
            prompt_hash=_prompt_hash(fed),
            **self._facts(question),
        )

    def _facts(self, question: Question) -> dict[str, Any]:
        context = self.context
        return {
            "truncated": self.truncated,
            "gold_present": gold_fed(self.stretches, question.gold),
            "held": context.held,
            "held_bytes": context.held_bytes,
            "full_bytes": self.full_bytes,
            "peak_bytes": context.cost.peak_bytes,
            "read_seconds": context.cost.seconds,
            "pairs": context.cost.pairs,
            "excerpt": self.holdings.excerpt(self.passage.context, question.gold[0] if question.gold else None),
        }


def _index(plan: Plan) -> str | None:
    """Which index a plan wants."""
    method = plan.get("fetch")
    return method.key if isinstance(method, Fetch) else None


def _hash(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _prompt_hash(ids: Tensor) -> str:
    """16 hex digits of the tokens fed, prompt included."""
    return hashlib.sha256(ids.to(torch.int32).numpy().tobytes()).hexdigest()[:16]
