"""What a method sees when it decides: one layer of one sequence, heads of equal length, no batch, no padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

PUNCTUATION, SPECIAL = 1, 2  # kinds of token


class Rotations(Protocol):
    """How a model turns queries and keys by their positions, for signals that reckon with other positions."""

    def rotate(self, keys: Tensor, moves: Tensor, index: int) -> Tensor:
        """keys [H, N, D] of layer `index` -> as they would be `moves` [N] positions further on."""
        ...

    def place(self, keys: Tensor, old: Tensor, new: Tensor, index: int) -> Tensor:
        """keys [H, N, D] of layer `index` at positions `old` [N] -> as they would be at positions `new` [N]; right too
        where the first tokens turn by other angles than later ones, which differences cannot tell.
        """
        ...

    def mean_rotation(self, first: int, last: int, index: int) -> Tensor:
        """-> [D, D] float32: the rotation averaged over positions first..last, to be multiplied with columns."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Observation:
    """One layer of one sequence at the moment of a decision.

    H key-value heads hold N entries each; the last W queries of the tokens just read (or of the probe that was
    lent) are kept. Where heads hold unequal numbers, the runtime observes them one by one (H = 1).
    """

    layer: int
    keys: Tensor
    """[H, N, D], as cached: after rotation."""
    values: Tensor
    """[H, N, Dv]."""
    positions: Tensor
    """[H, N] int32: which token each entry came from."""
    queries: Tensor
    """[H·G, W, D], after rotation."""
    query_positions: Tensor
    """[W] int32."""
    scaling: float
    """What q·k is multiplied with before the softmax."""
    token_ids: Tensor
    """[seen] int32: every token read so far."""
    seen: int
    began: int = 0
    """Position of the first token of this turn: of the read, the append or the question going on."""
    probed: bool = False
    """True if the queries are a probe's, which holds no entries itself."""
    generator: torch.Generator
    """Seeded by plan, layer and time: the same draw whatever the batch."""
    state: Mapping[str, Tensor] = field(default_factory=dict)
    """[H, N] float32 by name: what the scorer has accumulated for these entries; it lasts through decisions, forks,
    appends and files."""
    surprisal: Tensor | None = None
    """[T] float32, for scorers that ask for it: -log of the probability that each of the last T tokens had; NaN for
    one that nothing predicted."""
    nontext: Tensor | None = None
    """[T] bool: which of the last T tokens the caller marked as something other than text."""
    kinds: Tensor | None = None
    """[seen] uint8, for scorers that ask for it: SPECIAL, PUNCTUATION (nothing but it), or 0 for other tokens."""
    carried: dict[str, Tensor] = field(default_factory=dict)
    """What earlier layers left for later ones in this pass; the one thing that `accumulate` may write into."""
    rotations: Rotations | None = None
    """The model's own rotations; None where positions are not rotated into queries and keys."""
    lse: Tensor | None = None
    """[H·G, W] float32 where it is known: the logarithm of what each query's exponentiated scores sum to over all that
    its layer holds, of which this observation may show a part."""
    memo: dict[object, Tensor] = field(default_factory=dict)

    @property
    def heads(self) -> int:
        """Key-value heads H."""
        return self.keys.shape[0]

    @property
    def entries(self) -> int:
        """Entries N held by each head."""
        return self.keys.shape[1]

    def once(self, key: object, compute: Callable[[], Tensor]) -> Tensor:
        """A signal, computed the first time somebody asks for it in this observation."""
        if key not in self.memo:
            self.memo[key] = compute()
        return self.memo[key]
