"""What comes back from a context: answers, judged texts, what they cost, and what is held."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from farspan.runtime.recall import LayerRecall

if TYPE_CHECKING:
    from farspan.context import Context


@dataclass(frozen=True)
class Usage:
    """What stood behind an answer. Entries are per key-value head on average over the full-attention layers."""

    seen: int
    """Tokens read before this question (documents and earlier turns)."""
    held: float
    """Entries held of them."""
    held_bytes: int
    """Bytes of KV held before this question."""
    full_bytes: int
    """Bytes a transformers DynamicCache would hold of the same tokens."""
    question_tokens: int
    answer_tokens: int
    trained_length: int | None
    """Tokens the model was trained on, where it says so."""
    beyond_trained: bool
    """True if the answer stands beyond that length."""


@dataclass(frozen=True)
class Timings:
    """Wall-clock seconds of one answer; questions asked together share their forward passes."""

    first_token: float
    total: float

    def tokens_per_second(self, tokens: int) -> float:
        """Decoding speed after the first token."""
        rest = self.total - self.first_token
        return (tokens - 1) / rest if rest > 0 and tokens > 1 else 0.0


@dataclass(frozen=True)
class Answer:
    """The reply to one question; `context` is the conversation up to and including it."""

    question: str
    text: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length"]
    """`stop`: the model ended it, or a stop string did; `length`: `max_new_tokens` (or the positions) did."""
    usage: Usage
    timings: Timings
    context: Context = field(repr=False)
    recall: tuple[LayerRecall, ...] | None = None
    """With `recall=True`: the share of full attention that its steps covered, layer by layer."""


@dataclass(frozen=True)
class Scored:
    """How likely a model finds a text that it is given, token by token.

    `token_ids` are those of the text; `logprobs` (natural logarithm) and `first` (whether the token was the likeliest)
    are as many, or one fewer: straight after a read nothing was fed that the very first token could be judged by, so
    that a text which nothing precedes is judged from its second token on.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    first: tuple[bool, ...]


@dataclass(frozen=True)
class ReadCost:
    """What reading cost. `peak_bytes` is KV alone: everything allocated for entries at the worst moment, of all the
    contexts read in one batch; `stated_peak_bytes` is the bound that was known before the first chunk.
    """

    seconds: float
    tokens: int
    peak_bytes: int
    stated_peak_bytes: int
    seen: int = 0
    """Tokens that had been seen when it was over."""
    repacked: int = 0
    """Entries, over all heads, that a store had packed and that were packed anew because they had to move: they lost a
    little once more."""
    pairs: float | None = None
    """Under a prefill method: of the pairs of a query and a key that a dense read of the same tokens computes, the
    share that its patterns showed."""


@dataclass(frozen=True)
class Foreseen:
    """What a read would need, known before it: `tokens` fed to the model, the bound on bytes of KV at the worst moment,
    and about how many bytes would stay held.
    """

    tokens: int
    peak_bytes: int
    held_bytes: int


@dataclass(frozen=True)
class LayerView:
    """What one layer holds: per head the positions, and the bytes of all of it."""

    layer: int
    window: int | None
    positions: tuple[Tensor, ...]
    nbytes: int
