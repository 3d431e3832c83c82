"""Rows of a batch as plain transformers wants them: padded on the left."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from farspan.cache import SequenceCache


def side_by_side(sequences: Sequence[SequenceCache], asked: Sequence[Tensor], pad: int) -> dict[str, Tensor]:
    """Ids, mask and positions [B, slots]: what was seen, then what is asked, both padded on the left to the longest.

    `generate` cuts off as many slots as the cache counts, which must be what was seen, in every row.
    """
    old = [sequence.ids().long() for sequence in sequences]
    coming = [torch.arange(ids.numel()) + s.next_position for s, ids in zip(sequences, asked, strict=True)]
    columns = {
        "input_ids": (old, asked, pad),
        "attention_mask": ([torch.ones_like(t) for t in old], [torch.ones_like(t) for t in asked], 0),
        "position_ids": ([torch.arange(t.numel()) for t in old], coming, 0),
    }
    return {
        name: torch.cat(
            [
                pad_sequence(list(part), batch_first=True, padding_value=filler, padding_side="left")
                for part in (before, after)
            ],
            1,
        )
        for name, (before, after, filler) in columns.items()
    }
