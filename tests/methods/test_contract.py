"""Every built-in method keeps the public contract, and the contract test notices who does not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from farspan.methods.compress.base import Compressor
from farspan.methods.parallel.base import Standing
from farspan.methods.parallel.concat import Concat
from farspan.methods.parallel.homer import Homer
from farspan.methods.retain.base import Allocator, Scorer
from farspan.methods.retain.snapkv import Snapkv
from farspan.methods.store.int8 import Int8
from farspan.registry import Method, names
from farspan.testing import FAMILIES, check_method

BUILT_INS = [name for family in FAMILIES for name in names(family)]


@pytest.mark.parametrize("name", BUILT_INS)
def test_a_built_in_keeps_the_contract(name):
    check_method(name)


@pytest.mark.parametrize("kind", ["qwen3", "phi3", "gpt2", "opt"])
def test_it_is_kept_on_other_architectures(kind):
    check_method(Snapkv(window=8), models=(kind,))


@dataclass(frozen=True, kw_only=True)
class Newest(Scorer):
    """Keep the newest; a plug-in that nobody registered."""

    name: ClassVar[str] = "newest"

    def score(self, observation):
        return observation.positions.float()


def test_a_class_need_not_be_registered():
    check_method(Newest, models=("llama",))


# Each of these breaks one promise, in the way that is easiest to do by mistake.


@dataclass(frozen=True, kw_only=True)
class Silent(Newest):
    name = "silent"


class Undecorated(Newest):
    """No dataclass of its own."""

    name = "undecorated"
    more: int = 3


@dataclass(frozen=True, kw_only=True)
class Transposed(Newest):
    """Scores of the wrong shape."""

    name = "transposed"

    def score(self, observation):
        return observation.positions.float().T


@dataclass(frozen=True, kw_only=True)
class PerQueryHead(Newest):
    """Scores per query head, where heads come in groups."""

    name = "per_query_head"

    def score(self, observation):
        return observation.queries[:, -1].norm(dim=-1, keepdim=True).expand(-1, observation.entries)


@dataclass(frozen=True, kw_only=True)
class Writes(Newest):
    """Masks in place what it was lent."""

    name = "writes"

    def score(self, observation):
        observation.keys[:, :1] = 0.0
        return observation.keys.norm(dim=-1)


@dataclass(frozen=True, kw_only=True)
class Rolls(Newest):
    """Draws from the global generator."""

    name = "rolls"

    def score(self, observation):
        return torch.rand(observation.heads, observation.entries)


@dataclass(frozen=True, kw_only=True)
class Remembers(Newest):
    """Depends on what else was read before: its scores flip at each call."""

    name = "remembers"
    calls: ClassVar[list[int]] = []

    def score(self, observation):
        if observation.seen == observation.entries:  # only in a real read
            self.calls.append(1)
        return observation.positions.float() * (-1) ** (len(self.calls) // 3)


@dataclass(frozen=True, kw_only=True)
class Emptying(Newest):
    """Protects nothing."""

    name = "emptying"

    def protects(self):
        return 0, 0


@dataclass(frozen=True, kw_only=True)
class Greedy(Allocator):
    """Gives every head everything."""

    name = "greedy"

    def allocate(self, scores, observed, total):
        return torch.full((len(scores),), total)


@dataclass(frozen=True, kw_only=True)
class Boasting(Int8):
    """Declares more precision than it has."""

    name, family = "boasting", "store"
    error: ClassVar[float] = 1e-4


@dataclass(frozen=True, kw_only=True)
class Hiding(Int8):
    """Forgets its scales when it counts."""

    name, family = "hiding", "store"

    def nbytes(self, count, heads, head_size, value_size, dtype):
        return count * heads * (head_size + value_size)


@dataclass(frozen=True, kw_only=True)
class Overlong(Compressor):
    """Reads everything, whatever the budget."""

    name = "overlong"

    def compress(self, segments, question, budget):
        return list(segments)


@dataclass(frozen=True, kw_only=True)
class Shuffled(Compressor):
    """Puts the end first."""

    name = "shuffled"

    def compress(self, segments, question, budget):
        if budget >= sum(s.token_end - s.token_start for s in segments):
            return list(segments)
        last, first = segments[-1], segments[0]
        parts = [
            replace(last, token_start=last.token_end - budget // 2),
            replace(first, token_end=first.token_start + budget - budget // 2),
        ]
        return [part for part in parts if part.token_start < part.token_end]


@dataclass(frozen=True, kw_only=True)
class Overlapping(Concat):
    """Lets what follows stand where the last piece does."""

    name, family = "overlapping", "parallel"

    def stand(self, first, lengths):
        return Standing(super().stand(first, lengths).positions, first + sum(lengths) - lengths[-1])


@dataclass(frozen=True, kw_only=True)
class Swapping(Concat):
    """Counts pieces from 0 instead of from where they stand in the text."""

    name, family = "swapping", "parallel"

    def pieces(self, ranges):
        return super().pieces([(a - ranges[0][0] + 1, b - ranges[0][0]) for a, b in ranges])


@dataclass(frozen=True, kw_only=True)
class Unfinished(Homer):
    """Merges for the last time above the last layer."""

    name, family = "unfinished", "parallel"

    def stops(self, layers, height):
        return [stop - 1 for stop in super().stops(layers, height)]


@dataclass(frozen=True, kw_only=True)
class PerHead(Homer):
    """Lets every head choose for itself, where all hold the same."""

    name, family = "per_head", "parallel"

    def significance(self, asking):
        return asking.keys.norm(dim=-1)


@dataclass(frozen=True, kw_only=True)
class Unfamiliar(Method):
    """Of a family that nobody tests."""

    name, family, slot = "unfamiliar", "speculate", "speculate"


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (Silent, "no docstring"),
        (Undecorated, r"not decorated with @dataclass"),
        (Transposed, r"not \[H, N\]"),
        (PerQueryHead, r"not \[H, N\] = \(2, 26\) \(G = 2\)"),
        (Writes, "changed a tensor it was given"),
        (Rolls, "two answers to one observation"),
        (Remembers, "two reads hold different things"),
        (Emptying, "emptied"),
        (Greedy, "of a total of"),
        (Boasting, "allows"),
        (Hiding, "announced"),
        (Overlong, "returned 125 tokens for a budget of"),
        (Shuffled, "out of order"),
        (Overlapping, "lets the next token stand at 0, within a piece that ends at 5"),
        (Swapping, "changed which tokens are whose"),
        (Unfinished, r"unfinished.stops\(32, 0\) is \[31\]"),
        (PerHead, r"returned \(2, 1\), not \[n\]"),
        (Unfamiliar, "no contract test yet"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_broken_promise_is_named(broken, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_method(broken, models=("llama",))


def test_an_order_that_computes_something_else_is_found(monkeypatch):
    from farspan.runtime import reader

    real = reader._Read.row

    def forgetful(self, chunk, *, layerwise):
        row, ids = real(self, chunk, layerwise=layerwise)
        if chunk == 1:
            ids = ids.flip(0)
        return row, ids

    monkeypatch.setattr(reader._Read, "row", forgetful)
    with pytest.raises(AssertionError, match="at full budget logits are off by"):
        check_method("stream", models=("llama",))
