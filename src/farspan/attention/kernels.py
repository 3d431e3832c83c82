"""One dispatch: which route attends to a piece, and why not another."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from farspan.attention import native, sighted, triton
from farspan.attention.dense import naive, torch_cpu
from farspan.attention.scaling import softcap_of
from farspan.cache import Extent
from farspan.errors import OptionError

BACKENDS = ("naive", "torch", "native", "triton")
FASTEST = {"cpu": ("native", "torch", "naive"), "cuda": ("triton", "naive")}
# Query rows per head (tokens times group) up to which the C++ kernels for few are the faster ones: than torch's, and
# than ours for many, where the machine has it. At 32 rows that takes a fifth of their time over bfloat16, as long as
# they over codes; at 16 rows half, and twice as long.
FEW_ROWS, FEWER_ROWS = 128, 16
QUERY_ROWS = 512  # of the naive route, so that its scores never grow to T×N

log = logging.getLogger("farspan")


class Choice(NamedTuple):
    """A route and why it was taken; `rejected` says why each faster one was not."""

    name: str
    why: str
    rejected: dict[str, str]


class FewRows(Protocol):
    """Kernels that attend few query rows to all that a layer holds in one call, and know its entries as parts of their
    own; see `native` for what each function does.
    """

    def part_of(self, extent: Extent) -> Any | None: ...  # noqa: D102
    def tail_part(  # noqa: D102
        self, keys: Tensor, values: Tensor, *, first_token: int, tokens: int, window: int | None
    ) -> Any: ...
    def seen_by(self, part: Any, tokens: slice | Tensor) -> Any: ...  # noqa: D102
    def gathered(self, part: Any, slots: Sequence[Tensor], log_weights: Sequence[Tensor] | None = None) -> Any: ...  # noqa: D102
    def attend(  # noqa: D102
        self,
        query: Tensor,
        heads: int,
        value_size: int,
        scaling: float,
        parts: Sequence[Any],
        dtype: torch.dtype,
        *,
        whole: bool = False,
    ) -> tuple[Tensor, Tensor]: ...


@functools.cache
def backend(device: str) -> Choice:
    """The route for a device type, said once in the log. FARSPAN_KERNELS=naive|torch|native|triton forces one, for
    ablation.

    `native` attends few query rows to all that is held; many rows, as in a read, go the way of `torch`, or in bfloat16
    through matrix products of its own where the machine has them (AMX). `triton` does both on a GPU; on a CPU it is
    never chosen, but it can be forced where TRITON_INTERPRET=1 lets it run.
    """
    forced = os.environ.get("FARSPAN_KERNELS")
    if forced is not None and forced not in BACKENDS:
        raise OptionError(f"FARSPAN_KERNELS={forced!r} is not a backend; allowed: {', '.join(BACKENDS)}")
    reasons = _unavailable(device)
    if forced is not None and reasons.get(forced):
        raise OptionError(f"FARSPAN_KERNELS={forced} cannot be had here: {reasons[forced]}")
    best = next(name for name in FASTEST.get(device, ("naive",)) if not reasons.get(name))
    name = forced or best
    rejected = {other: reason for other, reason in reasons.items() if reason and other != name}
    chosen = Choice(name, "forced by FARSPAN_KERNELS" if forced else _described(name), rejected)
    said = "".join(f"; no {other}: {reason}" for other, reason in rejected.items())
    log.info("attention on %s: %s (%s)%s", device, name, chosen.why, said)
    return chosen


def _unavailable(device: str) -> dict[str, str | None]:
    """Each route that is not always there -> None, or why it is not."""
    if device != "cpu":
        reason = f"no fused route for {device} yet"
        return {"triton": triton.available(device), "native": reason, "torch": reason}
    return {"native": native.available(), "torch": torch_cpu.available(), "triton": triton.available(device)}


def _described(name: str) -> str:
    match name:
        case "native":
            return native.library()[1]
        case "triton":
            return "Triton kernels, compiled for this GPU when first called; untested on a GPU so far"
        case "torch":
            return "torch's CPU flash kernel, which returns the log-sum-exp"
    return "the definition"


def partial_attention(
    query: Tensor, keys: Tensor, values: Tensor, scaling: float, visible: Tensor | None, *, causal: bool = False
) -> tuple[Tensor, Tensor]:
    """query [H, G, T, D] to one piece keys [H, N, D], values [H, N, Dv] -> out [H, G, T, Dv] in float32 or in
    the dtype of the keys, as the kernel leaves it, and lse [H, G, T] float32.

    `visible` [T, N] or [H, T, N] bool, None for everything; `causal` means query t sees keys 0..t (T == N).
    """
    H, G, T, _ = query.shape
    if not keys.shape[1]:
        out = torch.zeros(H, G, T, values.shape[-1], device=query.device)
        return out, torch.full((H, G, T), -torch.inf, device=query.device)
    query = query.to(keys.dtype)
    if backend(query.device.type).name == "triton" and _known(keys, values):
        return _triton().attend_piece(query, keys, values, scaling, visible, causal=causal)
    if visible is None and many_rows(query.flatten(0, 1), T, keys, values, scaling):
        return sighted.attend_piece(query, keys, values, scaling, causal=causal)
    same_size = keys.shape[-1] == values.shape[-1]  # the flash kernel takes no other
    if same_size and _fused(query.device.type, scaling):
        return torch_cpu.attend_piece(query, keys, values, scaling, visible, causal=causal)
    if causal:
        visible = torch.ones(T, T, dtype=torch.bool, device=query.device).tril()
    parts = []
    for start in range(0, T, QUERY_ROWS):
        rows = slice(start, start + QUERY_ROWS)
        mask = None if visible is None else visible[..., rows, :]
        parts.append(naive.attend_piece(query[:, :, rows], keys, values, scaling, mask))
    return torch.cat([o for o, _ in parts], dim=2), torch.cat([s for _, s in parts], dim=2)


def many_rows(query: Tensor, tokens: int, keys: Tensor, values: Tensor, scaling: float) -> bool:
    """Whether `sighted.attend` serves `tokens` tokens of query [Hq, T, D] better than any other, where they see all of
    keys [Hk, N, D] and values [Hk, N, Dv], or up to their own. It rounds queries; others than many keep their digits.
    """
    few = FEWER_ROWS if query.dtype == keys.dtype else FEW_ROWS
    return query.shape[0] // keys.shape[0] * tokens > few and in_one_call(query, [(keys, values)], scaling)


def in_one_call(query: Tensor, held: Sequence[tuple[Tensor, ...]], scaling: float) -> bool:
    """Whether `sighted.attend` serves queries that see keys and values like these: the C++ kernels are chosen, and
    have what it needs.
    """
    return backend(query.device.type).name == "native" and sighted.takes(held, scaling)


def seeing_mask(query: Tensor, keys: Tensor, values: Tensor, scaling: float, visible: Tensor) -> Tensor:
    """`visible` [T, N] bool, in which every query sees something, as `seeing_attention` of such query [H, G, T, D],
    keys and values wants it; good for every call with the same one.
    """
    if keys.shape[-1] != values.shape[-1] or not _fused(query.device.type, scaling):
        return visible
    return torch_cpu.stacked_bias(visible, query.shape[1], keys.dtype)


def seeing_attention(
    query: Tensor, keys: Tensor, values: Tensor, scaling: float, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """As `partial_attention`, for one `mask` that many pieces share (see `seeing_mask`), or none; out may be in the
    keys' dtype.
    """
    if keys.shape[-1] != values.shape[-1] or not _fused(query.device.type, scaling):
        return partial_attention(query, keys, values, scaling, mask)
    return torch_cpu.attend_stacked(query.to(keys.dtype), keys, values, scaling, mask)


def _fused(device: str, scaling: float) -> bool:
    if softcap_of(scaling) is not None:  # torch's kernels have none
        return False
    chosen = backend(device)
    return chosen.name in ("torch", "native") and "torch" not in chosen.rejected


def few_rows(query: Tensor, tokens: int, keys: Tensor, values: Tensor) -> FewRows | None:
    """The kernels that attend from `tokens` tokens of query [Hq, T, D] to layers of keys [Hk, N, D] and values
    [Hk, N, Dv] in one call, or None where torch's matrix products serve as well or better.
    """
    chosen = backend(query.device.type).name
    if query.shape[0] // keys.shape[0] * tokens > FEW_ROWS or chosen not in ("native", "triton"):
        return None
    if not _known(keys, values):
        return None
    return native if chosen == "native" else _triton()


def _known(keys: Tensor, values: Tensor) -> bool:
    """Whether kernels written by hand take keys and values like these."""
    return keys.dtype in native.KINDS and max(keys.shape[-1], values.shape[-1]) <= native.LARGEST


def _triton() -> Any:
    from farspan.attention.triton import launch

    return launch
