"""Artefacts of models that have none: random head profiles and rope factors that fit what a test has."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TypeVar

from farspan import ropes
from farspan.heads import BEYOND, SCORES, SUFFIX, HeadProfile
from farspan.methods.positions.longrope import Longrope
from farspan.registry import Method
from farspan.ropes import RopeFactors
from farspan.runtime.hf_inspect import prepare_model
from farspan.testing.tiny import tiny_model

M = TypeVar("M", bound=Method)


def made_up_profile(heads: Mapping[int, int], fingerprint: Mapping[str, str] | None = None) -> HeadProfile:
    """Random scores, the same for the same heads, for layers with so many key-value heads each."""
    random = Random(repr(sorted(heads.items())))
    scores = {name: tuple(tuple(random.random() for _ in range(n)) for n in heads.values()) for name in SCORES}
    for i, name in enumerate(BEYOND):  # a wider span loses less
        scores[name] = tuple(tuple(score / (1 + i) for score in row) for row in scores["spread"])
    return HeadProfile(model="made up", fingerprint=fingerprint or {}, layers=tuple(heads), scores=scores)


@contextmanager
def profiled(method: M, heads: Mapping[int, int]) -> Iterator[M]:
    """The method with a made-up profile of these heads, if it goes by one at all; else as it is."""
    if "profile" not in method.artefacts:
        yield method
        return
    with TemporaryDirectory() as folder:
        file = made_up_profile(heads).save(Path(folder) / ("made-up" + SUFFIX))
        yield dataclasses.replace(method, **{"profile": str(file)})


def example(cls: type[M]) -> M:
    """A method of that class with its defaults; one that goes by rope factors has some made up for a tiny model."""
    if not issubclass(cls, Longrope):
        return cls()
    with TemporaryDirectory() as folder:
        made = made_up_factors(8).save(Path(folder) / ("made-up" + ropes.SUFFIX))
        return cls(factors=ropes.pinned(str(made)))  # known by its content from now on


def made_up_factors(pairs: int, fingerprint: Mapping[str, str] | None = None) -> RopeFactors:
    """Factors from 1 to 3, the same for the same number of pairs."""
    factors = tuple(1 + round(2 * i / max(1, pairs - 1), 2) for i in range(pairs))
    return RopeFactors(
        model="made up", fingerprint=fingerprint or {}, trained=128, length=512, factors=factors, unscaled=5
    )


def full_heads(kind: str) -> dict[int, int]:
    """Key-value heads of the full-attention layers of a tiny model."""
    layers = prepare_model(tiny_model(kind)).layout.layers
    return {index: layer.heads for index, layer in enumerate(layers) if layer.window is None}
