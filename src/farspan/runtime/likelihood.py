"""Scoring: texts that are fed rather than generated, each on its own fork, packed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from farspan.cache import SequenceCache
from farspan.runtime.decoder import Body
from farspan.runtime.fetching import Fetching
from farspan.runtime.packing import Packing
from farspan.runtime.step import Row, Step

CHUNK = 512  # tokens of a sequence per forward pass, and rows of logits held at once


@dataclass(frozen=True)
class Fed:
    """A sequence to score: the last `scored` of `ids` [T] are judged, by what stands before each of them.

    `cache` is a fork that this may change. Where every id is to be scored, the first has nothing fed before it that
    still gives its logits, and is left out.
    """

    cache: SequenceCache
    ids: Tensor
    packer: Packing | None
    scored: int
    fetching: Fetching | None = None

    def row(self, length: int) -> Row:
        """This sequence's share of a packed batch."""
        return Row(self.cache, length, packer=self.packer, fetching=self.fetching)


def score(body: Body, sequences: Sequence[Fed], *, chunk: int = CHUNK) -> list[Tensor]:
    """-> per sequence [n, 2] float32: log-probability of each scored token, and 1 where it was the likeliest.

    n is `scored`, or one less where the sequence holds nothing but scored tokens. Teacher-forced: every token is fed as
    it stands, whatever the model would have said. Logits are taken a chunk at a time, in float32.
    """
    parts: list[list[Tensor]] = [[] for _ in sequences]
    longest = max((each.ids.numel() for each in sequences), default=0)
    with torch.inference_mode():
        for start in range(0, longest, chunk):
            live = [i for i, each in enumerate(sequences) if start < each.ids.numel()]
            feeds = [sequences[i].ids[start : start + chunk] for i in live]
            step = Step([sequences[i].row(ids.numel()) for i, ids in zip(live, feeds, strict=True)])
            hidden = body.forward(torch.cat(feeds), step)
            step.feed(feeds)
            for i, its in zip(live, hidden.split([f.numel() for f in feeds]), strict=True):
                parts[i].append(_judged(body, sequences[i], its, start))
    return [torch.cat(its) if its else torch.empty(0, 2) for its in parts]


def _judged(body: Body, sequence: Fed, hidden: Tensor, start: int) -> Tensor:
    """hidden [T, hidden] of the tokens from `start` on -> [n, 2] for those that the next tokens are scored by."""
    total = sequence.ids.numel()
    first = max(total - sequence.scored - 1, 0)  # the token whose logits judge the first scored one
    low, high = max(first, start), min(start + hidden.shape[0], total - 1)
    if low >= high:
        return torch.empty(0, 2)
    logits = body.logits(hidden[low - start : high - start]).float()
    following = sequence.ids[low + 1 : high + 1].to(logits.device)
    logprobs = logits.log_softmax(-1).gather(-1, following[:, None])[:, 0]
    return torch.stack([logprobs, (logits.argmax(-1) == following).float()], dim=-1).cpu()
