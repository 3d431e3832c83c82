"""Positions, decided once per context: the angles a model rotates by, in float32, whatever length is reached.

A model's own rotary module is copied and its frequencies fixed for the context's length, so that frequencies which
depend on length (`dynamic`, `longrope`) can never change under keys that are already cached; rotations are computed
in float32 because bfloat16 breaks their relativity at length. Where a plan has a positions method, the copies get its
frequencies; what it decided is kept as plain numbers, in the context and in its file.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from farspan.errors import CapacityError
from farspan.methods.positions.base import Grouping, Positions, Rope

Kind = Literal["rope", "learned", "none"]
AHEAD = 64  # positions whose angles are computed together, where they will be asked for one by one


class Frequencies(NamedTuple):
    """What one kind of layers turns by, as numbers: see `Rope`."""

    inverse: tuple[float, ...]
    scale: float


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What a positions method decided for one context: enough to place its tokens again without the method.

    `ropes` has frequencies by layer type, under "" where all layers share them.
    """

    method: str
    factor: float
    ropes: Mapping[str, Frequencies]
    unscaled: int = 0
    grouping: Grouping | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Placement:
        """What a context file holds of it."""
        ropes = {name: Frequencies(tuple(inverse), scale) for name, (inverse, scale) in data["ropes"].items()}
        grouping = data["grouping"] and Grouping(*data["grouping"])
        return cls(**{**data, "ropes": ropes, "grouping": grouping})


class Ahead:
    """Angles of one position after another, as an answer needs them: computed for a run of positions at a time, because
    those of one take as many operations. Frequencies are fixed, so each position's are its own.
    """

    def __init__(self) -> None:
        self._runs: dict[Any, tuple[int, Tensor | tuple[Tensor, ...]]] = {}

    def at(
        self, position: int, which: Any, compute: Callable[[Tensor], Tensor | tuple[Tensor, ...]]
    ) -> Tensor | tuple[Tensor, ...]:
        """What `compute(position_ids [1, 1])` gives for a position. It has positions in the dimension before the last,
        and is known again by `which`.
        """
        known = self._runs.get(which)
        if known is None or not 0 <= position - known[0] < AHEAD:
            known = self._runs[which] = position, compute(torch.arange(position, position + AHEAD)[None])
        first, run = known
        if isinstance(run, Tensor):
            return run.narrow(-2, position - first, 1)
        return tuple(each.narrow(-2, position - first, 1) for each in run)


@dataclass(frozen=True, eq=False)
class PositionSpec:
    """How the tokens of one context are placed. `length` positions were decided when it was read; `bound` says that
    going beyond them would be wrong (angles that depend on length, learned positions) and is an error.
    """

    kind: Kind
    length: int
    trained: int | None
    bound: bool
    rope_type: str = "default"
    modules: tuple[nn.Module, ...] = field(default=(), repr=False)
    """Rotary modules with fixed frequencies, in the order in which a body holds its own: any instance can use them."""
    placement: Placement | None = field(default=None, repr=False)
    """What a positions method decided; None where the model's own positions are used."""
    ahead: Ahead = field(default_factory=Ahead, repr=False)
    """Angles of the next positions, where they were asked for one by one."""

    @property
    def grouping(self) -> Grouping | None:
        """How positions depend on pairs of tokens; None where they do not."""
        return None if self.placement is None else self.placement.grouping

    def agrees(self, other: PositionSpec) -> bool:
        """Whether the tokens of another context are placed alike, so that both can share a forward pass."""
        unlike = (self.bound or other.bound) and self.length != other.length
        return self.placement == other.placement and not unlike

    def angles(self, position_ids: Tensor, layer_type: str | None = None) -> tuple[Tensor, Tensor]:
        """position_ids [T] -> cos, sin [T, rotary dimensions] in float32, in the model's own layout.

        `layer_type` is needed where frequencies differ by it (Gemma 3). Raises for models without rotations.
        """
        if not self.modules:
            raise CapacityError(f"a model with {self.kind} positions has no angles")
        fixed = self.modules[0]
        cos, sin = rotary(fixed, position_ids[None], layer_type)
        return cos[0], sin[0]

    def immovable(self) -> str | None:
        """Why entries cannot be moved by differences of positions; None where they can."""
        if self.grouping is not None:
            return f"{self.rope_type} places tokens by pairs"
        if self.placement is not None and self.placement.unscaled:
            return (
                f"{self.rope_type} turns the first {self.placement.unscaled} tokens by other angles than all later ones"
            )
        return None

    def check(self, end: int, what: str) -> None:
        """Raise CapacityError if position `end` - 1 lies beyond what was decided."""
        if self.bound and end > self.length:
            raise CapacityError(
                f"{what} needs {end} positions, this context was decided for {self.length}"
                + (
                    f" (the model learned {self.trained} and has no others)."
                    if self.kind == "learned"
                    else f" ({self.rope_type} frequencies depend on the length). Read again with length={end} or more."
                )
            )

    def describe(self) -> dict[str, Any]:
        """As it is written to a context file."""
        own = {
            "kind": self.kind,
            "length": self.length,
            "trained": self.trained,
            "bound": self.bound,
            "rope_type": self.rope_type,
        }
        return own if self.placement is None else {**own, "placement": asdict(self.placement)}


def apart(specs: Sequence[PositionSpec]) -> str | None:
    """Why contexts of these positions cannot share a forward pass, or None if they can."""
    if all(spec.agrees(specs[0]) for spec in specs):
        return None
    types = sorted({spec.rope_type for spec in specs})
    if len(types) > 1:
        return f"these contexts were read with different positions ({', '.join(types)}); ask them one by one"
    return (
        f"these contexts were read for {sorted({spec.length for spec in specs})} positions, and their angles depend on "
        "that; read them with one length=..., or ask them one by one"
    )


def common(specs: Sequence[PositionSpec]) -> PositionSpec:
    """What serves the rows of one batch; raises CapacityError for contexts whose angles differ."""
    if (reason := apart(specs)) is not None:
        raise CapacityError(reason)
    return specs[0]


def rotary(module: nn.Module, position_ids: Tensor, layer_type: str | None) -> tuple[Tensor, Tensor]:
    """position_ids [B, T] -> cos, sin [B, T, d] in float32 from a rotary module."""
    like = torch.empty(0, dtype=torch.float32, device=position_ids.device)
    if layer_type is None:
        return module(like, position_ids)
    return module(like, position_ids, layer_type)


def fixed_copy(module: nn.Module, length: int, init_functions: dict) -> tuple[nn.Module, set[str]]:
    """A rotary module with its frequencies fixed for `length` positions -> (copy, length-dependent types it had)."""
    fixed = _copied(module)
    rope_type = getattr(module, "rope_type", "default")
    per_layer = isinstance(rope_type, dict)
    types: dict[str | None, str] = dict(rope_type) if per_layer else {None: rope_type}
    dependent = set()
    for layer_type, kind in types.items():
        if kind not in ("dynamic", "longrope"):
            continue
        dependent.add(kind)
        prefix = f"{layer_type}_" if layer_type is not None else ""
        device = getattr(module, f"{prefix}inv_freq").device
        extra = {"layer_type": layer_type} if layer_type is not None else {}
        frequencies, scaling = init_functions[kind](module.config, device, seq_len=length, **extra)
        setattr(fixed, f"{prefix}inv_freq", frequencies)
        setattr(fixed, f"{prefix}attention_scaling", scaling)
    setattr(fixed, "rope_type", dict.fromkeys(types, "default") if per_layer else "default")  # noqa: B010
    return fixed, dependent


def _copied(module: nn.Module) -> nn.Module:
    """A copy without the hooks on it: ours know the whole model, and its weights would be copied with them."""
    bare = copy.copy(module)
    bare.__dict__.update({name: type(kept)() for name, kept in bare.__dict__.items() if "_hooks" in name})
    return copy.deepcopy(bare)


def ropes_of(module: nn.Module, types: Mapping[str, str | None]) -> dict[str, Rope]:
    """What a rotary module with fixed frequencies turns by, for each of these layer types by its name in a placement.

    Pairs that do not turn at all (frequency 0) are left out.
    """
    found = {}
    for name, layer_type in types.items():
        inverse, scale = _frequencies(module, layer_type)
        found[name] = Rope(inverse=inverse[inverse > 0], scale=scale)
    return found


def decide(method: Positions, ropes: Mapping[str, Rope], trained: int, factor: float) -> Placement:
    """Have a method choose frequencies for `factor` times the trained length."""
    chosen = {name: method.stretch(rope, trained, factor) for name, rope in ropes.items()}
    return Placement(
        method=str(method.name),
        factor=factor,
        ropes={name: Frequencies(tuple(rope.inverse.tolist()), rope.scale) for name, rope in chosen.items()},
        unscaled=method.unscaled(factor),
        grouping=method.grouping(trained, factor),
    )


def placed(fixed: nn.Module, placement: Placement) -> nn.Module:
    """A rotary module with fixed frequencies -> a copy that turns as a placement says."""
    far = copy.deepcopy(fixed)
    for name, frequencies in placement.ropes.items():
        layer_type = name or None
        inverse, _ = _frequencies(far, layer_type)
        chosen = inverse.clone()
        chosen[inverse > 0] = torch.tensor(frequencies.inverse, dtype=torch.float32, device=inverse.device)
        _set_frequencies(far, layer_type, chosen, frequencies.scale)
    if not placement.unscaled:
        return far
    near = copy.deepcopy(fixed)
    for name, frequencies in placement.ropes.items():
        inverse, _ = _frequencies(near, name or None)
        _set_frequencies(near, name or None, inverse, frequencies.scale)
    return _TwoSpeeds(near, far, placement.unscaled)


class _TwoSpeeds(nn.Module):
    """The first `count` positions turn as one rotary module says, all later ones as another."""

    def __init__(self, near: nn.Module, far: nn.Module, count: int) -> None:
        super().__init__()
        self.near, self.far, self.count = near, far, count

    def forward(self, x: Tensor, position_ids: Tensor, layer_type: str | None = None) -> tuple[Tensor, Tensor]:
        """As a rotary module's."""
        more = () if layer_type is None else (layer_type,)
        near, far = self.near(x, position_ids, *more), self.far(x, position_ids, *more)
        early = (position_ids < self.count)[..., None]
        cos, sin = (torch.where(early, a, b) for a, b in zip(near, far, strict=True))
        return cos, sin


def evenly(module: nn.Module) -> nn.Module:
    """The module that turns by one angle from token to token, of one that does not for its first tokens."""
    return module.far if isinstance(module, _TwoSpeeds) else module


def scale_of(module: nn.Module, layer_type: str | None) -> float:
    """What a rotary module multiplies its cosines and sines with (YaRN's attention factor, say)."""
    return _frequencies(evenly(module), layer_type)[1]


def _frequencies(module: nn.Module, layer_type: str | None) -> tuple[Tensor, float]:
    prefix = "" if layer_type is None else f"{layer_type}_"
    return getattr(module, f"{prefix}inv_freq").float(), float(getattr(module, f"{prefix}attention_scaling"))


def _set_frequencies(module: nn.Module, layer_type: str | None, inverse: Tensor, scale: float) -> None:
    prefix = "" if layer_type is None else f"{layer_type}_"
    setattr(module, f"{prefix}inv_freq", inverse)
    setattr(module, f"{prefix}attention_scaling", scale)
