"""Encoders past their trained length: a positions method's frequencies in a model's own rotary modules (LongEmbed)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from torch import nn
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from farspan.errors import PlanDoesNotApply, PlanError, UsageError
from farspan.methods.positions.base import Positions
from farspan.plan import Plan
from farspan.runtime.hf_inspect import ATTRIBUTE
from farspan.runtime.positions import decide, fixed_copy, placed, ropes_of

M = TypeVar("M", bound=nn.Module)


@contextmanager
def extend(encoder: M, plan: str | Plan, *, length: int | None = None) -> Iterator[M]:
    """Within the `with`, an embedding model's rotary positions reach as far as a positions method says; then no more.

    `plan` names one method, such as "ntk(factor=8)"; without a factor it is what `length` tokens need. Layers that
    look at a window alone keep frequencies of their own. The encoder's tokenizer has a limit too: raise its
    `model_max_length`. Raises PlanError, PlanDoesNotApply, or UsageError for a causal model that contexts read.

    Source: LongEmbed (Zhu et al. 2024), which extends encoders so without training.
    """
    method = _method(Plan.parse(plan))
    if hasattr(encoder, ATTRIBUTE):
        raise UsageError(
            f"this model reads contexts: give the plan to it instead, model.read(documents, '{method.name}')"
        )
    with ExitStack() as restored:
        for parent, name, module in _rotary_modules(encoder, method):
            setattr(parent, name, _stretched(module, method, length))
            restored.callback(setattr, parent, name, module)
        yield encoder


def _method(plan: Plan) -> Positions:
    method = plan.get("positions")
    if not isinstance(method, Positions) or len(plan.methods) != 1:
        raise PlanError(f"an encoder is extended by one positions method, such as ntk(factor=8), not by {str(plan)!r}")
    if method.pairwise:
        raise PlanDoesNotApply(f"{method.name} places tokens by pairs, which an encoder's own attention cannot do")
    return method


def _rotary_modules(encoder: nn.Module, method: Positions) -> list[tuple[nn.Module, str, nn.Module]]:
    found = [
        (parent, name, child)
        for parent in encoder.modules()
        for name, child in parent.named_children()
        if type(child).__name__.endswith("RotaryEmbedding") and hasattr(child, "config")
    ]
    if not found:
        raise PlanDoesNotApply(
            f"{method.name} does not apply: {type(encoder).__name__} has no rotary positions (or keeps them in a way "
            "that transformers does not)"
        )
    return found


def _stretched(module: nn.Module, method: Positions, length: int | None) -> nn.Module:
    """A copy of a rotary module that turns as the method says."""
    config = module.config
    trained = getattr(config, "max_position_embeddings", None)
    if trained is None or (length is None and not method.given):
        raise PlanError(f"how far? Write {method.name}(factor=...), or give length=...")
    fixed, _ = fixed_copy(module, trained, ROPE_INIT_FUNCTIONS)
    ropes = ropes_of(fixed, _full_types(module))
    reason = next(filter(None, (method.applies(rope, trained) for rope in ropes.values())), None)
    if reason is not None or not ropes:
        raise PlanDoesNotApply(f"{method.name} does not apply: {reason or 'all layers look at a window alone'}")
    return placed(fixed, decide(method, ropes, trained, method.needed(length or trained, trained)))


def _full_types(module: nn.Module) -> Mapping[str, str | None]:
    """The layer types whose frequencies are stretched, by their names in a placement."""
    types = getattr(module, "rope_type", "default")
    if not isinstance(types, dict):
        return {"": None}
    return {name: name for name in types if "sliding" not in name}
