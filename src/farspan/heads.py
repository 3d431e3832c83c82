"""Head profiles: which attention heads of a model retrieve, as one small saved artefact that plans name.

A plan names one by its file, and holds on to its content: `profile=model.heads` becomes `model.heads#0123456789abcdef`
when the plan is built, the hash of the plan takes in those digits alone, and a file that says something else by the
time it is needed is an error. Contexts that were read with a profile open and answer without it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from farspan.artefacts import DIGITS, Kind, checksum, is_pinned, unpinned
from farspan.errors import PlanDoesNotApply, ProfileError

SUFFIX = ".heads"
SHIPPED = "reference"  # the name of the embedded model's profile, which needs no file
SCORES = ("retrieval", "reasoning", "spread")
SPANS = (16, 8, 4, 2)
BEYOND = ("beyond/0", *(f"beyond/{n}" for n in SPANS))  # profiles made before lack these

_HOW = "Make one with: farspan profile MODEL -o model.heads"
FILE = Kind(mark="farspan head profile", name="head profile", suffix=SUFFIX, version=1, how=_HOW)
_PLACE = Path(__file__).parent / "reference" / ("model" + SUFFIX)
_known: dict[str, HeadProfile] = {}  # by digest: what was read once need not be there for ever


@dataclass(frozen=True, kw_only=True)
class HeadProfile:
    """Scores of every key-value head of one model's full-attention layers, and how they were made.

    `scores[name][i][h]` belongs to head h of layer `layers[i]`: `retrieval`, how often its strongest look lands on the
    very token that is copied next; `reasoning`, the attention it pays to the right answer where a wrong one stands
    beside it; `spread`, the share of all entries that it takes to gather most of its attention; `beyond/n`, what it
    pays to entries farther back than 1/n of the text (`beyond/0`: than a few tokens), but for its beginning.
    """

    model: str
    fingerprint: Mapping[str, str]
    layers: tuple[int, ...]
    scores: Mapping[str, tuple[tuple[float, ...], ...]]
    made: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what is no table of scores."""
        for name in (*SCORES, *(BEYOND if self.has_spans else ())):
            rows = self.scores.get(name, ())
            if len(rows) != len(self.layers) or tuple(map(len, rows)) != self.heads:
                layers = len(self.layers)
                raise ProfileError(f"the scores {name!r} do not give a number for each head of {layers} layers")
            if any(not math.isfinite(score) or score < 0 for row in rows for score in row):
                raise ProfileError(f"the scores {name!r} hold a number that is negative or none at all")

    @property
    def heads(self) -> tuple[int, ...]:
        """Key-value heads of each of `layers`."""
        return tuple(len(row) for row in self.scores[SCORES[0]])

    @property
    def has_spans(self) -> bool:
        """Whether it says what lies beyond spans; profiles that were made earlier do not."""
        return BEYOND[0] in self.scores

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits of what it says: how plans know it."""
        return checksum(_content(self))[:DIGITS]

    def row(self, name: str, layer: int) -> tuple[float, ...]:
        """One score of each head of a layer."""
        return self.scores[name][self.layers.index(layer)]

    def belongs(self, fingerprint: Mapping[str, str], path: str) -> None:
        """Raise PlanDoesNotApply unless it was made with the model of that fingerprint."""
        if self.fingerprint.get("whole") != fingerprint.get("whole"):
            parts = ("config", "tokenizer", "weights")
            other = " and ".join(part for part in parts if self.fingerprint.get(part) != fingerprint.get(part))
            raise PlanDoesNotApply(
                f"the head profile was made with {self.model!r}, and {path!r} is another model (other {other}). "
                f"{_HOW}, then name it in the plan, such as headkv:10%(profile=model.heads)"
            )

    def fits(self, heads: Mapping[int, int]) -> str | None:
        """Why it does not fit full-attention layers with so many heads each, or None if it does."""
        mine = dict(zip(self.layers, self.heads, strict=True))
        if mine == dict(heads):
            return None
        return f"it scores the heads {_counted(mine)}, and this model has {_counted(heads)}. {_HOW}"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it, whole or not at all; raises StorageError."""
        return FILE.write(_content(self), path)


def load(name: str) -> HeadProfile:
    """The profile that a file holds, or `reference`, or a pinned name `file#digits`.

    Raises ProfileError: missing, damaged, newer than this farspan, no profile, or not the one that was pinned.
    """
    path, pin = unpinned(name)
    if pin in _known:
        return _known[pin]
    profile = _read(_PLACE if path == SHIPPED else Path(path).expanduser())
    if pin and profile.digest != pin:
        raise FILE.not_the_one(path, profile.digest, pin)
    _known[profile.digest] = profile
    return profile


def pinned(name: str) -> str:
    """The name as a plan keeps it: an absolute path and what the file says now. Raises ProfileError."""
    if name == SHIPPED or is_pinned(name):
        return name
    path = os.path.abspath(os.path.expanduser(name))
    return f"{path}#{load(path).digest}"


def digest(name: str) -> str:
    """What of a profile's name enters a plan's hash: its content, wherever it lies."""
    return unpinned(name)[1] or load(name).digest


def _read(path: Path) -> HeadProfile:
    content = FILE.read(path)
    try:
        return HeadProfile(
            model=content["model"],
            fingerprint=content["fingerprint"],
            layers=tuple(content["layers"]),
            scores={name: tuple(map(tuple, rows)) for name, rows in content["scores"].items()},
            made=content["made"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ProfileError(f"{path} is no head profile that this farspan reads ({error!r}). {_HOW}") from None


def _content(profile: HeadProfile) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(profile)))


def _counted(heads: Mapping[int, int]) -> str:
    """`4 of each of 3 layers (0, 1, 2)`, or each layer's own."""
    numbers: Sequence[int] = list(heads.values())
    if len(set(numbers)) == 1:
        return f"{numbers[0]} in each of {len(numbers)} layers ({', '.join(map(str, heads))})"
    return ", ".join(f"{count} in layer {layer}" for layer, count in heads.items())
