"""What every positions method promises about the frequencies it returns."""

from __future__ import annotations

import math

import torch

from farspan.methods.positions.base import Positions, Rope
from farspan.testing.reads import need


def check_stretch(method: Positions) -> None:
    """Raise AssertionError unless it makes as many usable frequencies as it gets, changes nothing in place, and leaves
    all as it is at factor 1.
    """
    who = f"{method.name}.stretch"
    for pairs, base, trained, scale in (
        (16, 10_000.0, 2048, 1.0),
        (8, 500_000.0, 8192, 1.25),
        (64, 10_000.0, 4096, 1.0),
    ):
        inverse = base ** -(torch.arange(pairs) / pairs)
        if method.applies(Rope(inverse=inverse, scale=scale), trained) is not None:
            continue  # factors for another number of pairs
        for factor in (1.0, 1.5, 8.0):
            rope = Rope(inverse=inverse.clone(), scale=scale)
            made, again = (method.stretch(rope, trained, factor) for _ in range(2))
            need(torch.equal(rope.inverse, inverse), f"{who} changed a tensor it was given")
            need(made.inverse.shape == inverse.shape, f"{who} made {made.pairs} frequencies of {pairs}")
            need(made.inverse.dtype == torch.float32, f"{who} made frequencies of {made.inverse.dtype}, not float32")
            usable = bool((made.inverse.isfinite() & (made.inverse >= 0)).all()) and math.isfinite(made.scale)
            need(usable and made.scale > 0, f"{who} made what is no frequency: {made.inverse.tolist()}, {made.scale}")
            same = torch.equal(made.inverse, again.inverse) and made.scale == again.scale
            need(same, f"{who} gave two answers to one question")
            trained_ones = torch.equal(made.inverse, inverse) and made.scale == scale
            need(trained_ones or factor > 1, f"{who} changes frequencies at factor 1, where nothing is to be gained")
