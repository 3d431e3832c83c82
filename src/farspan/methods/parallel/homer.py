"""HOMER: pieces that become one, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from farspan.attention.scaling import scored
from farspan.errors import PlanError
from farspan.methods.parallel._merging import Asking, Merging
from farspan.registry import Paper

PER_OCTAVE = 8  # distances are told apart by an eighth of a doubling


@dataclass(frozen=True, kw_only=True)
class Homer(Merging):
    """Merge neighbouring pieces two by two on the way up the layers, each cut to half its tokens before.

    Pieces of equal length, as many as a power of two, pass the first layers by themselves, all at the same positions;
    at most `chunk` tokens each, the text's first and last `ends` tokens among them, which every piece sees; the last
    ones are averaged at each merge. Then each keeps the tokens that its last token attends to most, and two become one.
    They are merged depth first, so that one piece per height waits, and memory grows with the logarithm of their
    number. All heads of all layers hold the same tokens in the end; what is appended later is held whole.

    How much a token matters is the highest score that its key gets from the last token in any head, less what scores
    at that distance are worth on average. The paper measures that average on other texts, per layer; here
    `calibration` queries of the piece itself give it (0: nothing is subtracted). `warmup` layers come before those
    that are shared out over the heights; by default three eighths of all, as the paper's 12 of 32, or what is left.

    It chooses token by token: of what only works whole, such as a number of several tokens, it may leave a part.

    Source: Song et al. 2024, "Hierarchical Context Merging", section 3, and its code (github.com/alinlab/HOMER), whose
    evaluation of perplexity has 100 tokens at each end. A text within `chunk` is one piece.
    """

    paper: ClassVar[Paper | None] = Paper("HOMER", arxiv="2404.10308", section="3", id=221)

    warmup: int | None = None
    calibration: int = 64

    def check(self) -> None:
        """Counts."""
        super().check()
        for name, value in (("warmup", self.warmup or 0), ("calibration", self.calibration)):
            if value < 0:
                raise PlanError(f"{name}={value} is no count; give 0 or more")

    def stops(self, layers: int, height: int) -> list[int]:
        """Equal shares of the layers above the warm-up, one for every height; what is left over goes to the pieces."""
        warmup = max(min(3 * layers // 8, layers - height - 1), 0) if self.warmup is None else self.warmup
        each = (layers - warmup) // (height + 1)
        if each < 1:
            most = max(layers - warmup - 1, 0)  # merges; half the pieces, one merge less
            shorter = ", or a shorter warm-up" if warmup else ""
            raise PlanError(
                f"{self.name}: a text of {2**height} pieces is merged {height} times, and {layers} layers less a "
                f"warm-up of {warmup} allow {most}; give chunk={self.chunk * 2 ** (height - most)}{shorter}"
            )
        return [layers - each * (height - k) for k in range(height + 1)]

    def asks(self, tokens: int) -> Tensor:
        """The last token, and others evenly before it."""
        wanted = min(max(self.calibration, 1), tokens)
        return torch.arange(1, wanted + 1) * tokens // wanted - 1

    def significance(self, asking: Asking) -> Tensor:
        """The last token's scores, the highest of all heads, less the average at that distance."""
        queries = asking.queries.float().unflatten(0, (asking.keys.shape[0], -1))
        products = torch.einsum("hgwd,hnd->hgwn", queries, asking.keys.float())
        scores = scored(products, asking.scaling).amax((0, 1))  # [W, n]
        if not self.calibration:
            return scores[-1]
        at, positions = (t.to(scores.device) for t in (asking.at, asking.positions))
        distance = positions[at, None] - positions
        octave = (PER_OCTAVE * (1 + distance.clamp(min=0).double()).log2()).long()
        seen = torch.arange(scores.shape[1], device=scores.device) <= at[:, None]
        seen &= distance >= 0  # a merged piece's later half sees some tokens from before they stand
        count, total = (scores.new_zeros(int(octave.max()) + 1) for _ in range(2))
        count.index_add_(0, octave[seen], torch.ones_like(scores[seen]))
        total.index_add_(0, octave[seen], scores[seen])
        return scores[-1] - (total / count.clamp(min=1))[octave[-1]]
