"""Searched rope factors: how much slower each rotary pair should turn, as one small saved artefact that plans name.

Named and kept as head profiles are: by file, held on to by content. Contexts that were read with one open and answer
without it, because their own file has the frequencies that came of it.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from farspan.artefacts import DIGITS, Kind, checksum, is_pinned, unpinned
from farspan.errors import PlanDoesNotApply, ProfileError

SUFFIX = ".rope"
_HOW = "Make one with: farspan search-positions MODEL --text FILE --length 32k -o model.rope"
FILE = Kind(mark="farspan rope factors", name="file of rope factors", suffix=SUFFIX, version=1, how=_HOW)

_known: dict[str, RopeFactors] = {}  # by digest: what was read once need not be there for ever


@dataclass(frozen=True, kw_only=True)
class RopeFactors:
    """By how much each pair of one model slows down, fastest pair first, for texts of up to `length` tokens; the first
    `unscaled` tokens turn as in training.
    """

    model: str
    fingerprint: Mapping[str, str]
    trained: int
    length: int
    factors: tuple[float, ...]
    unscaled: int = 0
    made: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what slows nothing down, or a fast pair more than a slower one."""
        if not self.factors or not all(math.isfinite(each) and each >= 1 for each in self.factors):
            raise ProfileError(f"rope factors are finite numbers from 1 on, not {list(self.factors)}")
        if any(a > b for a, b in itertools.pairwise(self.factors)):
            raise ProfileError(f"rope factors never fall from one pair to the next slower one: {list(self.factors)}")
        if self.unscaled < 0 or not 0 < self.trained < self.length:
            raise ProfileError(
                f"rope factors for {self.length} tokens of a model trained on {self.trained}, the first "
                f"{self.unscaled} unscaled: lengths must be above the trained one, which is above 0"
            )

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits of what it says: how plans know it."""
        return checksum(asdict(self))[:DIGITS]

    def belongs(self, fingerprint: Mapping[str, str], path: str) -> None:
        """Raise PlanDoesNotApply unless they were searched with the model of that fingerprint."""
        if self.fingerprint.get("whole") != fingerprint.get("whole"):
            raise PlanDoesNotApply(
                f"the rope factors were searched with {self.model!r}, and {path!r} is another model. {_HOW}"
            )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it, whole or not at all; raises StorageError."""
        return FILE.write(asdict(self), path)


def load(name: str) -> RopeFactors:
    """The factors that a file holds, or a pinned name `file#digits`.

    Raises ProfileError: missing, damaged, newer than this farspan, something else, or not the ones that were pinned.
    """
    path, pin = unpinned(name)
    if pin in _known:
        return _known[pin]
    place = Path(path).expanduser()
    content = FILE.read(place)
    try:
        found = RopeFactors(**{**content, "factors": tuple(content["factors"])})
    except (KeyError, TypeError) as error:
        raise ProfileError(f"{place} is no {FILE.name} that this farspan reads ({error!r}). {_HOW}") from None
    if pin and found.digest != pin:
        raise FILE.not_the_one(path, found.digest, pin)
    _known[found.digest] = found
    return found


def pinned(name: str) -> str:
    """The name as a plan keeps it: an absolute path and what the file says now. Raises ProfileError."""
    if is_pinned(name):
        return name
    path = os.path.abspath(os.path.expanduser(name))
    return f"{path}#{load(path).digest}"


def digest(name: str) -> str:
    """What of an artefact's name enters a plan's hash: its content, wherever it lies."""
    return unpinned(name)[1] or load(name).digest
