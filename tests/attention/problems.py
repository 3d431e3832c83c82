"""What kernels for few query rows are asked, and the definition of the answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from hypothesis import strategies as st
from torch import Tensor

from farspan.cache import DenseBlock, Extent, GroupBlock

DTYPES = {17: torch.bfloat16, 16: torch.float16}


@dataclass(frozen=True)
class Problem:
    """Queries [H*G, T, D], and what each head holds as (keys, values) after packing."""

    query: Tensor
    extent: Extent
    held: list[tuple[Tensor, Tensor]]
    scaling: float

    @property
    def heads(self) -> int:
        return len(self.held)

    @property
    def value_size(self) -> int:
        return self.held[0][1].shape[-1]


def made(
    kind: int,
    heads: int,
    group: int,
    tokens: int,
    counts: tuple[int, ...],
    size: int,
    value_size: int,
    seed: int,
    *,
    spread: float = 1.0,
    entry_group: int = 32,
    value_group: int | None = None,
    query_dtype: torch.dtype | None = None,
) -> Problem:
    g = torch.Generator().manual_seed(seed)
    dtype = DTYPES.get(kind, torch.float32)
    keys = (torch.randn(sum(counts), size, generator=g) * spread).to(dtype)
    values = torch.randn(sum(counts), value_size, generator=g).to(dtype)
    query = torch.randn(heads * group, tokens, size, generator=g).to(query_dtype or dtype)
    if kind > 8:
        block = DenseBlock(keys, values)
    else:
        value_group = value_group or (None if kind == 8 else entry_group)
        block = GroupBlock.pack(keys, values, counts, entry_group, bits=kind, value_group=value_group)
    return asked(query, block, counts)


def asked(query: Tensor, block: DenseBlock | GroupBlock, counts: tuple[int, ...]) -> Problem:
    """Queries [Hq, T, D] of the entries in a block, `counts` of each head."""
    offsets = [0]
    for count in counts:
        offsets.append(offsets[-1] + count)
    positions = torch.cat([torch.arange(c, dtype=torch.int32) for c in counts])
    extent = Extent(block, positions, tuple(offsets), shared=False)
    whole = block.unpack(0, sum(counts))
    held = [(whole[0][a:b], whole[1][a:b]) for a, b in pairwise(offsets)]
    return Problem(query, extent, held, query.shape[-1] ** -0.5)


def defined(problem: Problem, visible: Tensor | None = None, log_weights: list[Tensor] | None = None):
    """The definition in float64 -> out [T, Hq, Dv], lse [Hq, T]."""
    heads, tokens = problem.query.shape[0], problem.query.shape[1]
    group = heads // problem.heads
    out = torch.zeros(tokens, heads, problem.value_size, dtype=torch.float64)
    lse = torch.full((heads, tokens), -math.inf, dtype=torch.float64)
    for q in range(heads):
        keys, values = (x.double() for x in problem.held[q // group])
        scores = problem.query[q].double() @ keys.T * problem.scaling
        if log_weights is not None:
            scores = scores + log_weights[q // group].double()
        if visible is not None:
            scores = scores.masked_fill(~visible, -math.inf)
        lse[q] = scores.logsumexp(-1) if keys.shape[0] else -math.inf
        seen = lse[q] > -math.inf
        out[seen, q] = scores[seen].softmax(-1) @ values
    return out, lse


def agree(got, want, tolerance: float) -> None:
    out, lse = got[0].double(), got[1].double()
    assert torch.equal(lse == -math.inf, want[1] == -math.inf)
    torch.testing.assert_close(out, want[0], atol=tolerance, rtol=tolerance)
    seen = want[1] > -math.inf
    torch.testing.assert_close(lse[seen], want[1][seen], atol=5 * tolerance, rtol=tolerance)


@st.composite
def problems(draw, kinds=(32, 17, 16, 8, 4, 2), longest=(1, 3, 31, 130, 1100)):
    kind, heads = draw(st.sampled_from(kinds)), draw(st.integers(1, 3))
    group, tokens = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    most = draw(st.sampled_from(longest))
    counts = tuple(draw(st.integers(0, most)) for _ in range(heads))
    if sum(counts) == 0:
        counts = (1, *counts[1:])
    size, value_size = draw(st.sampled_from([8, 16, 24, 40, 64, 80, 128])), draw(st.sampled_from([8, 32, 64, 72, 128]))
    entry_group = draw(st.sampled_from([16, 32, 64, 128]))
    return made(
        kind, heads, group, tokens, counts, size, value_size, draw(st.integers(0, 2**31)), entry_group=entry_group
    )
