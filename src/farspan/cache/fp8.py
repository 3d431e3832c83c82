"""Eight-bit floating point: one power of two per entry, so that scaling itself loses nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from farspan.cache.block import Paging, interleaved, register_block, storage_bytes
from farspan.errors import PlanDoesNotApply

FORMATS = {"e4m3": "float8_e4m3fn", "e5m2": "float8_e5m2"}


def missing(form: str) -> str | None:
    """Why entries cannot be held in this format here, or None where they can."""
    if hasattr(torch, FORMATS[form]):
        return None
    return f"torch {torch.__version__} has no {FORMATS[form]}; use int8"


def _encode(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x [E, D] -> codes [E, D], exponents [E] int8: x is about codes · 2**exponent, the largest code within range."""
    largest = x.float().abs().amax(-1)
    if not bool(torch.isfinite(largest).all()):
        raise PlanDoesNotApply("keys or values hold infinities or NaN, which 8-bit floating point cannot say")
    _, exponent = torch.frexp(largest / torch.finfo(dtype).max)  # largest / max < 2**exponent
    exponent = exponent.clamp(-126, 127)  # below, the inverse is no float32 any more
    return torch.ldexp(x.float(), -exponent[:, None]).to(dtype), exponent.to(torch.int8)


def _decode(codes: Tensor, exponents: Tensor, dtype: torch.dtype) -> Tensor:
    """The inverse of `_encode`, up to what the codes' rounding lost."""
    return torch.ldexp(codes.float(), exponents[..., None].int()).to(dtype)


@register_block
@dataclass(frozen=True, eq=False)
class Fp8Block:
    """Keys [E, D] and values [E, Dv] as 8-bit floats, each row times a power of two of its own."""

    kind: ClassVar[str] = "fp8"
    dtype: torch.dtype
    key_codes: Tensor  # [E, D] float8
    key_exponent: Tensor  # [E] int8
    value_codes: Tensor  # [E, Dv] float8
    value_exponent: Tensor  # [E] int8
    counts: tuple[int, ...]

    @classmethod
    def pack(cls, keys: Tensor, values: Tensor, counts: tuple[int, ...], form: str = "e4m3") -> Fp8Block:
        """keys [E, D], values [E, Dv] -> block; off by at most 1/16 (e4m3) or 1/8 (e5m2) of each number's own size,
        down to 2**-18 of the largest in its row (2**-32), below which what is lost is that small.

        Raises PlanDoesNotApply for infinities and NaN.
        """
        dtype = getattr(torch, FORMATS[form])
        key_codes, key_exponent = _encode(keys, dtype)
        value_codes, value_exponent = _encode(values, dtype)
        return cls(
            dtype=keys.dtype,
            key_codes=key_codes,
            key_exponent=key_exponent,
            value_codes=value_codes,
            value_exponent=value_exponent,
            counts=tuple(counts),
        )

    @property
    def entries(self) -> int:
        """E, all heads together."""
        return self.key_codes.shape[0]

    @property
    def nbytes(self) -> int:
        """Codes and exponents."""
        return storage_bytes(*self.tensors().values())

    def unpack(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Entries start..stop in the dtype they were packed from."""
        run = slice(start, stop)
        keys = _decode(self.key_codes[run], self.key_exponent[run], self.dtype)
        return keys, _decode(self.value_codes[run], self.value_exponent[run], self.dtype)

    def unpack_heads(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Entries start..stop of every head at once, [H, n, D] and [H, n, Dv]; heads must hold equal numbers."""
        parts = [t.unflatten(0, (len(self.counts), -1))[:, start:stop] for t in self.tensors().values()]
        key_codes, key_exponent, value_codes, value_exponent = parts
        return _decode(key_codes, key_exponent, self.dtype), _decode(value_codes, value_exponent, self.dtype)

    def paging(self) -> Paging:
        """As many entries as fill 2 KiB with keys of 128 channels."""
        return Paging(16)

    def tensors(self) -> dict[str, Tensor]:
        """Four tensors."""
        names = ("key_codes", "key_exponent", "value_codes", "value_exponent")
        return {name: getattr(self, name) for name in names}

    def data(self) -> dict[str, Any]:
        """Entries per head, and the dtype to decode to."""
        return {"counts": list(self.counts), "dtype": str(self.dtype).removeprefix("torch.")}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> Fp8Block:
        """The inverse of `tensors` and `data`."""
        return cls(dtype=getattr(torch, data["dtype"]), counts=tuple(data["counts"]), **tensors)

    def joined(self, other: Fp8Block) -> Fp8Block | None:
        """self followed by other, head by head; None where they differ in format."""
        if self.key_codes.dtype != other.key_codes.dtype:
            return None
        theirs = other.tensors()
        parts = {
            name: interleaved(mine.view(torch.uint8), self.counts, theirs[name].view(torch.uint8), other.counts).view(
                mine.dtype
            )  # as bytes: torch concatenates no float8
            for name, mine in self.tensors().items()
        }
        counts = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        return replace(self, counts=counts, **parts)
