"""A model behind an endpoint, measured: what of it can be known from outside."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from farspan.endpoints.openai import EndpointModel, Reply, TextContext
from farspan.errors import FarspanError
from farspan.measure.counter import asked_of
from farspan.measure.evidence import Fed, excerpt_of, gold_fed
from farspan.measure.outcome import Outcome, hopeless, message_of
from farspan.measure.record import Mode
from farspan.plan import Plan
from farspan.tasks.base import Passage, Question

OVERHEAD = 24  # tokens that a server's chat template adds, at most, as far as known ones go
SLACK = 0.95  # of our own count: a server that has read less has cut the prompt


class EndpointCounter:
    """Counts with the model's tokenizer where it is known, else about."""

    def __init__(self, model: EndpointModel) -> None:
        self._model = model
        self._counted = lru_cache(maxsize=64)(lambda text: len(model.cutter.tokens(text)))

    def text(self, text: str) -> int:
        """Tokens of a text alone."""
        return self._counted(text)

    def prompt(self, context: str, question: Question) -> int:
        """Tokens of context, question and prefix, and what a chat template may add."""
        return self._counted(context) + self._counted(question.text + question.prefix) + OVERHEAD


class EndpointSubject:
    """An endpoint as the runner sees it."""

    def __init__(self, model: EndpointModel) -> None:
        self.model = model
        self.counter = EndpointCounter(model)

    def describe(self) -> dict[str, Any]:
        """See Subject. What weights answer behind a URL, nobody here can know."""
        return {
            "kind": "endpoint",
            "source": self.model.client.url,
            "name": self.model.name,
            "access": self.model.access,
            "api": self.model.api,
            "tokenizer": self.model.cutter.name,
            "chat_template": None,
            "decoding": "temperature 0",
        }

    def environment(self) -> dict[str, Any]:
        """See Subject."""
        return {"device": "endpoint", "concurrency": self.model.concurrency}

    def notes(self) -> list[str]:
        """See Subject."""
        notes = [
            f"{self.model.client.url} is a server: which weights answered, and with which template, is its own affair; "
            f"times are from request to whole reply, its rate limit's waits included; a kept reply has the time it took"
        ]
        if not self.model.cutter.exact:
            notes.append("token counts are approximate: lengths are about right; --tokenizer PATH makes them exact")
        return notes

    def check(self, plans: Sequence[Plan]) -> None:
        """See Subject."""
        for plan in plans:
            self.model.check(plan)

    def answer(self, passages: Sequence[Passage], plans: Sequence[Plan], mode: Mode) -> Iterator[list[list[Outcome]]]:
        """See Subject. In mode `aware` a method that leaves text out is told each question."""
        return ([self._answered(passage, plan, mode) for passage in passages] for plan in plans)

    def _answered(self, passage: Passage, plan: Plan, mode: Mode) -> list[Outcome]:
        questions = passage.questions
        groups = [list(questions)] if mode == "agnostic" else [[question] for question in questions]
        return [outcome for group in groups for outcome in self._answers(passage, group, plan, mode)]

    def _answers(self, passage: Passage, questions: list[Question], plan: Plan, mode: Mode) -> list[Outcome]:
        try:
            told = questions[0].text if mode == "aware" else None
            context = self.model.read(passage.context, plan, question=told)
        except FarspanError as error:
            return hopeless(len(questions), error)
        found: dict[int, Outcome] = {}
        for limit in dict.fromkeys(question.max_new_tokens for question in questions):
            numbers = [i for i, question in enumerate(questions) if question.max_new_tokens == limit]
            found |= dict(zip(numbers, self._asked(context, [questions[i] for i in numbers], limit), strict=True))
        return [found[number] for number in range(len(questions))]

    def _asked(self, context: TextContext, questions: list[Question], limit: int) -> list[Outcome]:
        judged = "log-probabilities of given text are not to be had from this API: use a model on this machine"
        asked = [question for question in questions if question.kind != "likelihood"]
        replies = iter(context.ask([asked_of(question) for question in asked], max_new_tokens=limit))
        return [
            Outcome(error=judged) if question.kind == "likelihood" else self._outcome(context, question, next(replies))
            for question in questions
        ]

    def _outcome(self, context: TextContext, question: Question, reply: Reply | FarspanError) -> Outcome:
        present = gold_fed([Fed(start, end, 0) for start, end in context.kept], question.gold)
        excerpt = excerpt_of(context.original, question.gold[0] if question.gold else None)
        if isinstance(reply, FarspanError):
            return Outcome(error=message_of(reply), gold_present=present, excerpt=excerpt)
        counted = self.counter.text(reply.prompt)
        cut = self.model.cutter.exact and reply.prompt_tokens is not None and reply.prompt_tokens < SLACK * counted
        generated = reply.reply_tokens if reply.reply_tokens is not None else self.counter.text(reply.text)
        return Outcome(
            reply=reply.text,
            finish=reply.finish,
            tokens=reply.prompt_tokens if reply.prompt_tokens is not None else counted,
            reply_tokens=generated,
            truncated=cut,
            gold_present=present,
            prompt_hash=hashlib.sha256(reply.prompt.encode()).hexdigest()[:16],
            seconds=reply.seconds,
            excerpt=excerpt,
        )
