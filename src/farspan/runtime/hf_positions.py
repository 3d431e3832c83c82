"""A transformers model's positions: what its rotary modules turn by, what a method makes of that, and moving keys."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from farspan.attention.pairs import Pairs
from farspan.errors import PlanDoesNotApply, UnsupportedModel
from farspan.methods.positions.base import Positions, Rope
from farspan.runtime.layout import ModelLayout
from farspan.runtime.positions import (
    Placement,
    PositionSpec,
    decide,
    evenly,
    fixed_copy,
    placed,
    ropes_of,
    rotary,
    scale_of,
)


class RotaryPositions:
    """The positions of one prepared model: rotary modules where it has them, or a table that it learned, or none."""

    def __init__(self, model: PreTrainedModel, body: nn.Module, layers: nn.ModuleList) -> None:
        self.body, self.layers, self.name = body, layers, type(model).__name__
        self.config = model.config.get_text_config(decoder=True)
        self.modules = [m for m in body.modules() if type(m).__name__.endswith("RotaryEmbedding")]

    @property
    def trained_length(self) -> int | None:
        """The longest text the model was built for."""
        return getattr(self.config, "max_position_embeddings", None)

    @property
    def rotates(self) -> bool:
        """Whether keys carry their positions as rotations, which can then be reckoned with."""
        return bool(self.modules) and self._rotation(0) is not None

    # -- deciding ----------------------------------------------------------------------------------------------

    def own(self, length: int) -> PositionSpec:
        """The model's own positions, decided for a context of up to `length` tokens."""
        learned = _learned_positions(self.body)
        if learned is not None:
            return PositionSpec("learned", learned, learned, True, rope_type="learned")
        if not self.modules:
            return PositionSpec("none", length, self.trained_length, False, rope_type="none")
        copies = [fixed_copy(module, length, ROPE_INIT_FUNCTIONS) for module in self.modules]
        dependent = set().union(*(types for _, types in copies))
        fixed = tuple(twin for twin, _ in copies)
        kind = "+".join(sorted(dependent)) or "default"
        return PositionSpec("rope", length, self.trained_length, bool(dependent), rope_type=kind, modules=fixed)

    def chosen(self, method: Positions, length: int, layout: ModelLayout) -> PositionSpec:
        """What a plan's method decides for a context of up to `length` tokens; raises PlanDoesNotApply."""
        self.check(method, layout)
        factor = method.needed(length, self.trained_length)
        trained = self.trained_length or round(length / factor)
        placement = decide(method, self.ropes(trained, layout), trained, factor)
        reach = length if method.given else max(length, trained)
        return self.at(placement, reach, bound=not method.given)

    def restored(self, described: Mapping[str, Any]) -> PositionSpec:
        """The positions of a context that was saved, from what its file says of them."""
        if (kept := described.get("placement")) is None:
            return self.own(described["length"])
        return self.at(Placement.from_json(kept), described["length"], bound=described["bound"])

    def check(self, method: Positions, layout: ModelLayout) -> None:
        """Raise PlanDoesNotApply for a positions method that this model gives nothing to act on."""
        reason = self._missing(method, layout)
        if reason is None:
            ropes = self.ropes(self.trained_length or 1, layout).values()
            reason = next(filter(None, (method.applies(rope, self.trained_length) for rope in ropes)), None)
        if reason is not None:
            raise PlanDoesNotApply(f"{method.name} does not apply: {reason}")

    def _missing(self, method: Positions, layout: ModelLayout) -> str | None:
        if (learned := _learned_positions(self.body)) is not None:
            return f"{self.name} learned {learned} positions and has no others; none of them turns"
        if not self.rotates:
            return f"{self.name} does not rotate queries and keys by their positions"
        if all(layer.window is not None for layer in layout.layers):
            window = layout.layers[0].window
            return f"all {len(self.layers)} layers of this model have a sliding window of their own ({window} tokens)"
        if self.trained_length is None and (method.pairwise or not method.given):
            hint = "" if method.pairwise else f"; write {method.name}(factor=...)"
            return f"this model does not say how long its training texts were{hint}"
        return None

    def ropes(self, trained: int, layout: ModelLayout) -> dict[str, Rope]:
        """What full-attention layers turn by at the trained length, by layer type where types differ."""
        fixed, _ = fixed_copy(self.modules[0], trained, ROPE_INIT_FUNCTIONS)
        full = [index for index, layer in enumerate(layout.layers) if layer.window is None]
        types = dict.fromkeys(self.layer_type(index) for index in full)
        return ropes_of(fixed, {each or "": each for each in types})

    def at(self, placement: Placement, length: int, *, bound: bool = False) -> PositionSpec:
        """Positions as a placement has them, for up to `length` tokens."""
        trained = self.trained_length or length
        copies = (fixed_copy(module, trained, ROPE_INIT_FUNCTIONS)[0] for module in self.modules)
        modules = tuple(placed(fixed, placement) for fixed in copies)
        return PositionSpec(
            "rope",
            length,
            self.trained_length,
            bound,
            rope_type=placement.method,
            modules=modules,
            placement=placement,
        )

    # -- turning -----------------------------------------------------------------------------------------------

    def layer_type(self, index: int) -> str | None:
        """The layer type whose frequencies a layer uses; None where all layers share them."""
        per_layer = "layer_type" in inspect.signature(self.modules[0].forward).parameters
        return self.config.layer_types[index] if per_layer else None

    def angles(self, spec: PositionSpec, position_ids: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """position_ids [B, T] -> cos, sin [B, T, d] in float32 of one layer."""
        return rotary(spec.modules[0], position_ids, self.layer_type(index))

    def rotate(self, keys: Tensor, moves: Tensor, index: int, spec: PositionSpec) -> Tensor:
        """keys [H, N, D] as layer `index` cached them -> as they would be `moves` [N] positions further on.

        Rotations add up, so R(old + move) = R(move) R(old): the model's own function applies R(move), whatever its
        layout and partial dimensions, in float32. Raises UnsupportedModel for models that do not rotate keys. Where
        the first tokens turn by other angles (`unscaled`), it is right among all later ones; see `place`.
        """
        self._check_rotates()
        angles = rotary(evenly(spec.modules[0]), moves[None].to(keys.device), self.layer_type(index))
        return self._turned(keys, *angles, index, spec)

    def pairs(self, spec: PositionSpec) -> Pairs | None:
        """How positions depend on pairs of tokens, for a forward pass; None where they do not."""
        if spec.grouping is None:
            return None
        return Pairs(*spec.grouping, partial(self.rotate, spec=spec))

    def place(self, keys: Tensor, old: Tensor, new: Tensor, index: int, spec: PositionSpec) -> Tensor:
        """keys [H, N, D] as layer `index` has them at positions `old` [N] -> as it would at positions `new` [N].

        What `rotate` does by differences, right for the first tokens too where these turn by other angles.
        """
        if spec.placement is None or not spec.placement.unscaled:
            return self.rotate(keys, new - old, index, spec)
        (cos, sin), (to_cos, to_sin) = (self.angles(spec, at[None].to(keys.device), index) for at in (old, new))
        scale = scale_of(spec.modules[0], self.layer_type(index))  # both factors have it
        cosine, sine = (to_cos * cos + to_sin * sin) / scale, (to_sin * cos - to_cos * sin) / scale
        return self._turned(keys, cosine, sine, index, spec)

    def mean_rotation(self, first: int, last: int, index: int, size: int, spec: PositionSpec) -> Tensor:
        """-> [D, D] float32: layer `index`'s rotation averaged over positions first..last, for columns of size D.

        Rotating is linear in cosines and sines, so their mean gives the mean rotation in one step.
        """
        device = next(self.body.parameters()).device
        cos, sin = self.angles(spec, torch.arange(first, last + 1, device=device)[None], index)
        rows = torch.eye(size, device=device)[None]
        return self._turned(rows, cos.mean(1, keepdim=True), sin.mean(1, keepdim=True), index, spec)[0].T

    def _turned(self, keys: Tensor, cos: Tensor, sin: Tensor, index: int, spec: PositionSpec) -> Tensor:
        """Rotate by angles whose cosines and sines have the model's scale, which cached keys have already."""
        scale = scale_of(spec.modules[0], self.layer_type(index))
        wide = keys[None].float()
        return self._rotation(index)(wide, wide, cos / scale, sin / scale)[1][0].to(keys.dtype)

    def _check_rotates(self) -> None:
        if not self.rotates:
            raise UnsupportedModel(f"{self.name} does not rotate its keys, so they cannot be moved")

    def _rotation(self, index: int) -> Any:
        return getattr(sys.modules[type(self.layers[index]).__module__], "apply_rotary_pos_emb", None)


def _learned_positions(body: nn.Module) -> int | None:
    """How many positions the model learned, for models that learn them."""
    for name in ("wpe", "embed_positions"):
        table = getattr(body, name, None)
        if isinstance(table, nn.Embedding):
            return table.num_embeddings - getattr(table, "offset", 0)
    return None
