"""Questions on their way: each a turn on a fork of its context, decoded together, and the answers made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from farspan.answer import Answer, Timings, Usage
from farspan.errors import OptionError, UsageError
from farspan.runtime.answering import Answering
from farspan.runtime.decoder import Turn, decode
from farspan.runtime.fetching import Fetching
from farspan.runtime.positions import common
from farspan.runtime.recall import Recall
from farspan.text import Asked, as_asked

if TYPE_CHECKING:
    from farspan.context import Context


class Asking:
    """One question for each of several contexts of one model, which may be the same context: forks, turns, texts."""

    def __init__(self, contexts: Sequence[Context], questions: Sequence[str | Asked], options: dict[str, Any]) -> None:
        how = {name: options.pop(name) for name in ("kind", "prefix") if name in options}
        self.contexts, self.questions = contexts, as_asked(questions, **how)
        self.model = contexts[0].model
        self.limits = _limits(options, len(contexts))
        self.measures = bool(options.pop("recall", False))
        self.sampling = self.model.sampling(options)
        self.body = self.model.runtime(common([context.positions for context in contexts]))
        self.turns = [self._turn(i) for i in range(len(contexts))]

    def _turn(self, index: int) -> Turn:
        context, asked = self.contexts[index], self.questions[index]
        ids = context._question(asked)
        ended = partial(self._ended, asked)
        cache = context._cache.fork()
        answering = Answering.of(context.plan, cache, self.body.rotations)
        fetching = Fetching.of(context.plan)
        if self.measures:
            _measure(context, fetching)
        return Turn(cache, ids, context._packing(), self._limit(index, ids), ended, answering, fetching)

    def _limit(self, index: int, ids: Tensor) -> int:
        """Tokens that an answer may have: what was asked for, within the positions that there are."""
        context = self.contexts[index]
        wanted = self.limits[index] if self.limits else self.sampling.max_new_tokens
        if not context.positions.bound:
            return wanted
        return max(1, min(wanted, context.positions.length - context.next_position - ids.numel()))

    def _ended(self, asked: Asked, tokens: list[int]) -> bool:
        return bool(self.sampling.stop) and _cut(self.text(asked, tokens), self.sampling.stop) is not None

    def decode(self) -> list[Answer]:
        """Answer all of them."""
        for _ in decode(self.body, self.turns, self.sampling):
            pass
        return self.answers()

    def text(self, asked: Asked, tokens: Sequence[int]) -> str:
        """Decoded, without special tokens. The space between words that were given and the answer is not part of it;
        a continuation is left as it is, so that it can be joined to its text.
        """
        text = self.model.tokenizer.decode(list(tokens), skip_special_tokens=True)
        if asked.kind == "continuation":
            return text
        return text if self.model.prompts.templated and not asked.prefix else text.lstrip()

    def answers(self) -> list[Answer]:
        """One for each question, in order, once all turns have ended."""
        return [self._answer(*each) for each in zip(self.contexts, self.questions, self.turns, strict=True)]

    def _answer(self, context: Context, asked: Asked, turn: Turn) -> Answer:
        trained, end = context.model.trained_length, turn.cache.next_position
        text = self.text(asked, turn.tokens)
        cut = _cut(text, self.sampling.stop)
        usage = Usage(
            seen=context.seen,
            held=context.held,
            held_bytes=context.held_bytes,
            full_bytes=context.full_bytes,
            question_tokens=turn.ids.numel(),
            answer_tokens=len(turn.tokens),
            trained_length=trained,
            beyond_trained=trained is not None and end > trained,
        )
        turn.finish(context.model.layout)
        after = context._with(turn.cache, _unfed=turn.tokens[-1], _turns=context._turns + 1)
        return Answer(
            question=asked.text,
            text=text if cut is None else text[:cut],
            token_ids=tuple(turn.tokens),
            finish_reason=turn.finish_reason or "length",
            usage=usage,
            timings=Timings(turn.first_seconds, turn.seconds),
            context=after,
            recall=turn.fetching.recall.found() if turn.fetching and turn.fetching.recall else None,
        )


class Stream:
    """An answer as it is decoded: iterate over pieces of text; `.answer` is whole once the iteration has ended."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking
        self._answer: Answer | None = None

    def __iter__(self) -> Iterator[str]:
        shown, turn, asked = "", self._asking.turns[0], self._asking.questions[0]
        for _ in decode(self._asking.body, self._asking.turns, self._asking.sampling):
            text = self._asking.text(asked, turn.tokens)
            cut = _cut(text, self._asking.sampling.stop)
            final = turn.finish_reason is not None
            safe = text if cut is None else text[:cut]
            safe = safe if final else _settled(safe, self._asking.sampling.stop)
            if len(safe) > len(shown):
                yield safe[len(shown) :]
                shown = safe
        self._answer = self._asking.answers()[0]

    @property
    def answer(self) -> Answer:
        """The whole answer; raises UsageError while it is still being decoded."""
        if self._answer is None:
            raise UsageError("the answer is not finished: iterate over the stream to its end first")
        return self._answer


def _measure(context: Context, fetching: Fetching | None) -> None:
    if fetching is None:
        raise OptionError(
            f"recall is what fetching covers, and the plan '{context.plan}' reads all that it holds at every step; "
            "read with a plan that fetches, such as topk:2048"
        )
    fetching.recall = Recall()


def _limits(options: dict[str, Any], count: int) -> list[int]:
    """`max_new_tokens` of each question, where they were given one by one; then the option is the largest of them."""
    given = options.get("max_new_tokens")
    if not isinstance(given, (list, tuple)):
        return []
    if len(given) != count or any(not isinstance(each, int) or each < 1 for each in given):
        raise OptionError(f"max_new_tokens={given!r} for {count} questions; give one number, or one above 0 for each")
    options["max_new_tokens"] = max(given)
    return list(given)


def _cut(text: str, stops: Sequence[str]) -> int | None:
    """Where the first stop string begins, or None."""
    found = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    return min(found) if found else None


def _settled(text: str, stops: Sequence[str]) -> str:
    """What more tokens cannot change: no half character at the end, no beginning of a stop string."""
    text = text.rstrip("�")
    held = 0
    for stop in stops:
        for size in range(1, min(len(stop), len(text) + 1)):
            if text.endswith(stop[:size]):
                held = max(held, size)
    return text[: len(text) - held]
