"""Running a model's first layers over a text, for compressors that choose tokens by what is asked there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from farspan.errors import PlanDoesNotApply
from farspan.methods.compress._skimming import Skimmed, Skimmer
from farspan.methods.order.base import equal_chunks
from farspan.runtime.feed import Part
from farspan.runtime.layout import ModelLayout
from farspan.runtime.prefilling import Prefilling
from farspan.runtime.reader import Body
from farspan.runtime.step import Row, Step
from farspan.text import Document, Tokens

CHUNK = 1024


def check_skimmer(skimmer: Skimmer, layout: ModelLayout) -> None:
    """Raise PlanDoesNotApply unless the layer that is asked is there and holds the whole text."""
    layers, index = len(layout.layers), skimmer.asks(len(layout.layers))
    full = [i for i, window in enumerate(layout.windows) if window is None]
    if index >= layers:
        raise PlanDoesNotApply(f"{skimmer.name} asks layer {index}, and this model has {layers}: 0 to {layers - 1}")
    if index not in full:
        listed = ", ".join(map(str, full)) or "none"
        raise PlanDoesNotApply(
            f"{skimmer.name} asks layer {index}, which sees {layout.windows[index]} tokens alone; layers with full "
            f"attention: {listed}. Name one, such as {skimmer.name}:4096(layer={full[0] if full else 0})"
        )


def skim(
    whole: list[tuple[Document, Tokens]],
    skimmer: Skimmer,
    before: Tensor,
    probe: Tensor | None,
    body: Callable[[int], Body],
) -> list[Part]:
    """What a skimmer leaves of tokenised documents, behind `before`; `body(tokens)` runs so many positions."""
    total = sum(len(tokens) for _, tokens in whole)
    budget = skimmer.budget.resolve(tokens=total) if skimmer.budget is not None else total
    if total <= budget:
        return [(i, d, t) for i, (d, t) in enumerate(whole)]
    text = torch.from_numpy(np.concatenate([tokens.ids for _, tokens in whole])).long()
    asked = probe if probe is not None else text[:0]
    ids = torch.cat([before, text, asked])
    skimmed = _skimmed(body(ids.numel()), ids, skimmer, before.numel(), total, asked.numel())
    chosen = skimmer.choose(skimmed, budget).cpu().numpy()
    parts: list[Part] = []
    at = 0
    for number, (document, tokens) in enumerate(whole):
        its = chosen[(chosen >= at) & (chosen < at + len(tokens))] - at
        at += len(tokens)
        if len(its):
            parts.append((number, document, Tokens(tokens.ids[its], tokens.spans[its])))
    return parts


def _skimmed(body: Body, ids: Tensor, skimmer: Skimmer, first: int, tokens: int, asked: int) -> Skimmed:
    """ids [n] through the layers up to the one that is asked, in chunks, and what is known there."""
    layout, cache = body.layout, body.layout.empty()
    index = skimmer.asks(len(layout.layers))
    wanted = min(skimmer.observes(), asked or tokens)
    below = skimmer.below()
    prefilling = None if below is None else Prefilling(below, len(layout.layers), ids.numel())
    queries: dict[int, Tensor] = {}
    chunks = equal_chunks(ids.numel(), max(CHUNK, 2 * wanted), wanted)
    with torch.inference_mode():
        for start, stop in chunks:
            row = Row(cache, stop - start, capacity=ids.numel(), reading=True, prefilling=prefilling)
            step = Step([row], observer=lambda layer, query, out: queries.update({layer: query}))
            body.run_layers(0, index, body.embed(ids[start:stop], step.positions), step)
            step.feed([ids[start:stop]])
    seen = ids.numel()
    return Skimmed(
        queries=queries[index][:, -wanted:],
        positions=torch.arange(seen - wanted, seen, dtype=torch.int32, device=queries[index].device),
        scaling=layout.layers[index].scaling,
        held=cache.layers[index],
        first=first,
        tokens=tokens,
    )
