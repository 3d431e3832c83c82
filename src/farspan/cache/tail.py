"""The open tail of a layer: a preallocated buffer that grows without copying at every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Tail:
    """Keys [H, n, D], values [H, n, Dv] of the newest n tokens, the same for every head; `first` is the position
    of the oldest of them and positions run on without a gap.

    The only mutable storage of a cache. Buffers grow by doubling, so appending is amortised constant.
    """

    __slots__ = ("_keys", "_used", "_values", "first", "length", "prepared")

    def __init__(self) -> None:
        self._keys: Tensor | None = None
        self._values: Tensor | None = None
        self._used: tuple[int, Tensor, Tensor] | None = None  # the last views, of so many tokens: asked for often
        self.first = 0
        self.length = 0
        self.prepared: Any = None
        """What kernels know of the buffers, but for how many tokens there are; None when these are others."""

    def __len__(self) -> int:
        return self.length

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers, used or not."""
        if self._keys is None or self._values is None:
            return 0
        return self._keys.untyped_storage().nbytes() + self._values.untyped_storage().nbytes()

    @property
    def keys(self) -> Tensor:
        """[H, n, D], a view."""
        return self._views()[1]

    @property
    def values(self) -> Tensor:
        """[H, n, Dv], a view."""
        return self._views()[2]

    def _views(self) -> tuple[int, Tensor, Tensor]:
        if self._used is None or self._used[0] != self.length:
            assert self._keys is not None and self._values is not None, "an empty tail has no shape yet"
            self._used = self.length, self._keys[:, : self.length], self._values[:, : self.length]
        return self._used

    @property
    def last(self) -> int:
        """Position of the newest token."""
        return self.first + self.length - 1

    def positions(self) -> Tensor:
        """[n] int32."""
        device = None if self._keys is None else self._keys.device
        return torch.arange(self.first, self.first + self.length, dtype=torch.int32, device=device)

    def append(self, keys: Tensor, values: Tensor, position: int, capacity: int = 0, *, exact: bool = False) -> None:
        """Add keys [H, T, D] and values [H, T, Dv] whose positions start at `position`.

        They are kept in the dtype of the values: rotations in float32 leave keys wider than the model.
        `capacity` is how many tokens the caller knows to be coming: reserved at once. `exact` says that no more
        than that is wanted, where memory counts for more than the copies that doubling saves.
        """
        if self.length and position != self.last + 1:
            raise ValueError(f"the tail ends at position {self.last}, new tokens start at {position}")
        if not self.length:
            self.first = position
        self._reserve(keys, values, max(self.length + keys.shape[1], capacity), exact)
        assert self._keys is not None and self._values is not None
        new = keys.shape[1]
        self._keys.narrow(1, self.length, new).copy_(keys)
        self._values.narrow(1, self.length, new).copy_(values)
        self.length += new

    def _reserve(self, keys: Tensor, values: Tensor, wanted: int, exact: bool) -> None:
        old_keys, old_values = self._keys, self._values
        if old_keys is not None and old_keys.shape[1] >= wanted:
            return
        grown = wanted if old_keys is None or exact else max(wanted, 2 * old_keys.shape[1])
        self._used = self.prepared = None
        self._keys = values.new_empty(keys.shape[0], grown, keys.shape[2])
        self._values = values.new_empty(values.shape[0], grown, values.shape[2])
        if self.length and old_keys is not None and old_values is not None:
            self._keys[:, : self.length] = old_keys[:, : self.length]
            self._values[:, : self.length] = old_values[:, : self.length]

    def drop_last(self, count: int) -> None:
        """Forget the newest `count` tokens (a probe that was only lent)."""
        self.length -= count

    def drop_first(self, count: int) -> None:
        """Forget the oldest `count` tokens, into a buffer no larger than what is left needs."""
        if not count:
            return
        keys, values = self.keys[:, count:].clone(), self.values[:, count:].clone()
        self._keys, self._values, self._used, self.prepared = keys, values, None, None
        self.first += count
        self.length -= count

    def clear(self) -> None:
        """Empty, giving the buffers back."""
        self._keys = self._values = self._used = self.prepared = None
        self.length = 0

    def clone(self) -> Tail:
        """An independent copy holding just the used part."""
        other = Tail()
        if self.length:
            other._keys, other._values = self.keys.clone(), self.values.clone()
            other.first, other.length = self.first, self.length
        return other
