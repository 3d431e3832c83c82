"""One line of `samples.jsonl`: a question under a plan, the reply, what it was worth and what it cost.

The runner writes these, statistics and reports read nothing else (beside the manifest).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from farspan.errors import DamagedFile

Status = Literal["ok", "error"]
Mode = Literal["agnostic", "aware"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Excerpt:
    """The text around the first gold span, and what of it the plan still held.

    `start` is the excerpt's first character in the context. `held` are (start, end, share) per token, in characters of
    the excerpt: the share of the full-attention layers' heads, in [0, 1], that hold the token. Empty where a model
    shows nothing.
    """

    text: str
    start: int
    gold: tuple[int, int]
    held: tuple[tuple[int, int, float], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One sample. Times in seconds, sizes in bytes, tokens by the model's tokenizer; None means not applicable."""

    # which sample
    id: str
    task: str
    version: int
    length: int
    """The length asked for; `tokens` is what it came to."""
    index: int
    question: int
    """Which of the context's questions, from 0."""
    questions: int = 1
    """How many the context has; all of them are asked."""
    context_id: str
    """Samples with the same one share a context: statistics cluster by it."""
    plan: str
    plan_hash: str
    mode: Mode
    """agnostic: read without knowing the question; aware: read with it (or what the task names) as probe."""
    # what came out
    status: Status
    error: str | None = None
    official: float | None = None
    """In [0, 1]; None where `status` is error. Likelihood samples: the share of tokens that came first."""
    strict: float | None = None
    parsed: bool | None = None
    reply: str = ""
    finish: Literal["stop", "length"] | None = None
    nll: float | None = None
    """Likelihood samples: mean negative log-likelihood per token, in nats."""
    scored_tokens: int | None = None
    # what was asked
    text: str = ""
    references: tuple[str, ...] = ()
    depth: float | None = None
    gold_present: bool | None = None
    """Whether the gold spans are in what was fed, whole; None without gold."""
    labels: Mapping[str, str | int | float] = field(default_factory=dict)
    tokens: int = 0
    """Prompt tokens fed, all of them."""
    characters: int = 0
    """Characters of the context."""
    reply_tokens: int = 0
    max_new_tokens: int = 0
    truncated: bool = False
    prompt_hash: str = ""
    # what it cost
    held: float | None = None
    held_bytes: int | None = None
    full_bytes: int | None = None
    """Of the whole text at full precision, whatever a method leaves out before reading."""
    peak_bytes: int | None = None
    read_seconds: float | None = None
    """Of the whole context; its questions share it."""
    first_token_seconds: float | None = None
    seconds: float | None = None
    tokens_per_second: float | None = None
    recall: tuple[float, ...] | None = None
    """Share of full attention that fell on what was fetched, layer by layer, where that was measured."""
    entries_read: float | None = None
    """Entries read per key-value head for a token of question or answer, where that was measured."""
    pairs: float | None = None
    """Under a prefill method: the share of a dense read's pairs that was computed."""
    excerpt: Excerpt | None = None

    def to_line(self) -> str:
        """One line of JSON, without its newline."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_line(cls, line: str) -> Record:
        """Read back what `to_line` wrote; raises DamagedFile for anything else."""
        try:
            values: dict[str, Any] = json.loads(line)
            unknown = set(values) - {f.name for f in fields(cls)}
            if unknown:
                raise ValueError(f"unknown fields {sorted(unknown)}")
            excerpt = values.get("excerpt")
            values["references"] = tuple(values.get("references", ()))
            if values.get("recall") is not None:
                values["recall"] = tuple(values["recall"])
            values["excerpt"] = _excerpt(excerpt) if excerpt else None
            return cls(**values)
        except (ValueError, TypeError, KeyError) as error:
            raise DamagedFile(f"not a sample of a run: {error}: {line[:80]!r}") from error


def _excerpt(values: dict[str, Any]) -> Excerpt:
    start, end = values["gold"]
    held = tuple((int(a), int(b), float(share)) for a, b, share in values["held"])
    return Excerpt(text=values["text"], start=values["start"], gold=(start, end), held=held)
