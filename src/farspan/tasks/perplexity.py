"""Perplexity of any text by position: what follows a context, scored token by token."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import ClassVar

from farspan.errors import UsageError
from farspan.tasks import _haystack
from farspan.tasks._fit import fit
from farspan.tasks._haystack import InHaystack
from farspan.tasks._stretch import LONGEST_TOKEN, cut
from farspan.tasks.base import Counter, Passage, Question, Score, Task

LEAD_TOKENS = 8
"""Fed before the first scored token, which would otherwise have no logits of its own context."""


class _TooShort(Exception):
    """The text ends before the passage does."""


@dataclass(frozen=True, kw_only=True)
class Following(InHaystack):
    """Perplexity of the text that follows, in segments: by position, and by how much was fed since the context.

    The last `segments` segments of `length` tokens are scored; a shorter and a longer length together cover a text from
    beginning to end. Labels: `position` (tokens before, between powers of two) and `after` (tokens since the context).
    """

    suite: str = "perplexity"
    segments: int = 8
    segment_tokens: int = 64
    minimum: ClassVar[int] = 1024
    depths: ClassVar[None] = None

    def generate(self, index: int, *, length: int, counter: Counter, random: Random) -> Passage:
        """See `Task.generate`. Raises UsageError for a text that is too short: what is repeated could be copied."""
        text = _haystack.load(self.haystack).text
        ahead = (self.segments * self.segment_tokens + LEAD_TOKENS) * LONGEST_TOKEN
        needed = int(length * _characters_per_token(text, counter)) + ahead
        found = self._fitted(text, self._start(text, needed, random), ahead, length, counter)
        while found is None:  # the text has more characters to a token where it began than elsewhere
            if needed >= len(text):
                raise UsageError(
                    f"{self.id} needs more than {len(text)} characters for {length} tokens, and the haystack "
                    f"{self.haystack!r} has no more; give a longer text or a shorter length"
                )
            needed = min(len(text), needed * 3 // 2)
            found = self._fitted(text, self._start(text, needed, random), ahead, length, counter)
        return self._labelled(found, counter)

    def _fitted(self, text: str, start: int, ahead: int, length: int, counter: Counter) -> Passage | None:
        """A passage of `length` tokens from `start`, or None where the text ends before it."""

        def passage(characters: int) -> Passage:
            end = start + characters + ahead
            if end > len(text):
                raise _TooShort
            return self._passage(text[start:end], characters, counter)

        try:
            return fit(self, passage, length=length, counter=counter)
        except _TooShort:
            return None

    def _start(self, text: str, needed: int, random: Random) -> int:
        """A line's beginning, drawn so that `needed` characters follow, where there are as many."""
        return text.rfind("\n", 0, int(random.random() * max(0, len(text) - needed))) + 1

    def _passage(self, text: str, characters: int, counter: Counter) -> Passage:
        context = text[: max(text.find(" ", characters), characters)]
        rest = text[len(context) :]
        fed, questions = len(cut(rest, LEAD_TOKENS, counter)), []
        for _ in range(self.segments):
            segment = cut(rest[fed:], self.segment_tokens, counter)
            questions.append(
                Question(
                    kind="likelihood",
                    text=rest[:fed],
                    references=(segment,),
                    max_new_tokens=self.segment_tokens,
                )
            )
            fed += len(segment)
        return Passage(context=context, questions=tuple(questions))

    def _labelled(self, passage: Passage, counter: Counter) -> Passage:
        read, asked = counter.text(passage.context), []
        for number, question in enumerate(passage.questions):
            before = read + counter.text(question.text)
            low = 1 << (before.bit_length() - 1)
            labels = {"position": f"{low} to {2 * low}", "after": number * self.segment_tokens}
            asked.append(replace(question, labels=labels))
        return replace(passage, questions=tuple(asked))

    def score(self, question: Question, reply: str) -> Score:
        """Whether a reply is the reference itself; what counts here is the likelihood, which the runner takes."""
        same = float(reply == question.references[0])
        return Score(official=same, strict=same)


def _characters_per_token(text: str, counter: Counter) -> float:
    """Somewhat more than on average, from the first tenth of a large text or all of a small one."""
    sample = text[: max(20_000, len(text) // 10)]
    return 1.25 * len(sample) / max(1, counter.text(sample))


TASKS: tuple[Task, ...] = (Following(name="following"),)
