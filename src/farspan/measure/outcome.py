"""What the runner needs of whatever it measures: a model on this machine, or one behind an endpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from farspan.measure.record import Excerpt, Mode
from farspan.plan import Plan
from farspan.tasks.base import Counter, Passage


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of one question: the fields of a Record that only the one who answered can fill. See there."""

    error: str | None = None
    reply: str = ""
    finish: Literal["stop", "length"] | None = None
    first_share: float | None = None
    """Likelihood samples: the share of reference tokens that the model found likeliest."""
    nll: float | None = None
    scored_tokens: int | None = None
    tokens: int = 0
    reply_tokens: int = 0
    truncated: bool = False
    gold_present: bool | None = None
    prompt_hash: str = ""
    held: float | None = None
    held_bytes: int | None = None
    full_bytes: int | None = None
    peak_bytes: int | None = None
    read_seconds: float | None = None
    first_token_seconds: float | None = None
    seconds: float | None = None
    tokens_per_second: float | None = None
    recall: tuple[float, ...] | None = None
    entries_read: float | None = None
    pairs: float | None = None
    excerpt: Excerpt | None = None


class Subject(Protocol):
    """Something that answers questions about a text under a plan."""

    @property
    def counter(self) -> Counter:
        """What counts tokens as this model will see them."""
        ...

    def describe(self) -> dict[str, Any]:
        """What decides the answers, for the manifest: weights, tokenizer, template, dtype, decoding."""
        ...

    def environment(self) -> dict[str, Any]:
        """Where it runs: device, threads; two machines may share one run."""
        ...

    def notes(self) -> list[str]:
        """What a reader of the results should know, in sentences."""
        ...

    def check(self, plans: Sequence[Plan]) -> None:
        """Raise PlanDoesNotApply for a plan that this cannot carry out."""
        ...

    def answer(self, passages: Sequence[Passage], plans: Sequence[Plan], mode: Mode) -> Iterator[list[list[Outcome]]]:
        """For each plan in turn: one outcome per question of each passage, in order; what goes wrong for one is its
        outcome, never an exception. The plans read alike, so that one reading may serve all of them.
        """
        ...


def hopeless(count: int, error: BaseException) -> list[Outcome]:
    """The same error for each of `count` questions."""
    return [Outcome(error=message_of(error))] * count


def message_of(error: BaseException) -> str:
    """What a record says went wrong."""
    return str(error) if str(error) else type(error).__name__
