"""The one place that knows Hugging Face: attention, masks and cache layers plug in here, through public hooks only.

transformers offers three integration points, and these suffice: `Cache(layers=[...])` whose `update` may return any
object, `AttentionInterface.register`, and `AttentionMaskInterface.register`. The cache returns a handle in place of
keys and values; the attention function receives it untouched and runs our own step. Two kinds of forward hooks add
what the interface lacks: rotary modules return float32 angles of the context's own positions, and the body notes which
cache is in use. Without one of our caches a prepared model behaves as before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from farspan.errors import ForeignContext, UnsupportedModel
from farspan.methods.positions.base import Positions
from farspan.runtime.hf_cache import NAME, FarspanCache, attention, mask, running
from farspan.runtime.hf_positions import RotaryPositions
from farspan.runtime.layout import ModelLayout
from farspan.runtime.positions import PositionSpec
from farspan.runtime.step import Step
from farspan.signals import Rotations


class Prepared:
    """A transformers model whose attention can read our caches: the body of our runtime."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.config = model.config.get_text_config(decoder=True)
        self.body, self.layers = find_layers(model)
        children = model._modules.items()
        self._stem = next(name for name, child in children if child is not None and self.body in set(child.modules()))
        self._given, self._plain_head = _Given(), False
        self.places = RotaryPositions(model, self.body, self.layers)
        self.rotaries = self.places.modules
        self.layout: ModelLayout = ModelLayout((), model.dtype, self.config.hidden_size, None)  # filled by inspection
        self.default_positions = self.positions(1)
        self._active: list[PositionSpec] = []
        self._hooks: list[Any] = []
        self._replaced = "sdpa"

    # -- what plugs in -----------------------------------------------------------------------------------------

    def plug_in(self) -> None:
        """Register our functions and hooks on the model. Public interfaces only; weights and code stay as they are."""
        AttentionInterface.register(NAME, attention)
        AttentionMaskInterface.register(NAME, mask)
        self._replaced = self.model.config._attn_implementation or "sdpa"
        self.model.set_attn_implementation(NAME)
        self._hooks = [
            *(module.register_forward_hook(self._rotary_hook, with_kwargs=True) for module in self.rotaries),
            self.body.register_forward_pre_hook(self._before, with_kwargs=True),
            self.body.register_forward_hook(self._after, with_kwargs=True, always_call=True),
        ]

    def unplug(self) -> None:
        """Leave the model as it was found."""
        for hook in self._hooks:
            hook.remove()
        self.model.set_attn_implementation(self._replaced)

    def _rotary_hook(self, module: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
        """Angles of the context's own positions in float32, in place of the model's."""
        if not self._active:
            return None
        index, spec = self.rotaries.index(module), self._active[-1]
        given = {**dict(zip(("x", "position_ids", "layer_type"), args, strict=False)), **kwargs}
        given["x"] = given["x"].new_empty(0, dtype=torch.float32)
        position = _one_position(given["position_ids"])
        if position is None:
            return spec.modules[index](**given)
        device, which = given["x"].device, (index, given.get("layer_type"))

        def compute(position_ids: Tensor) -> Any:
            return spec.modules[index](**{**given, "position_ids": position_ids.to(device)})

        return spec.ahead.at(position, (*which, device), compute)

    def _before(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        cache = kwargs.get("past_key_values")
        if isinstance(cache, FarspanCache):
            theirs, ours = (len(cache.layers), len(cache.positions.modules)), (len(self.layers), len(self.rotaries))
            if theirs != ours:
                raise ForeignContext(
                    f"this context was read with another model than this {type(self.model).__name__} of "
                    f"{len(self.layers)} layers; generate with the model that read it"
                )
            cache.pairs = self.places.pairs(cache.positions)
            cache.forward_begins(kwargs.get("position_ids"), kwargs.get("attention_mask"))
            running.append(cache)
            self._active.append(cache.positions)

    def _after(self, module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        cache = kwargs.get("past_key_values")
        if isinstance(cache, FarspanCache) and running and running[-1] is cache:
            running.pop()
            self._active.pop()
            if output is not None:
                cache.forward_ends(kwargs.get("input_ids", args[0] if args else None))

    # -- positions ---------------------------------------------------------------------------------------------

    @property
    def trained_length(self) -> int | None:
        """The longest text the model was built for."""
        return self.places.trained_length

    def positions(self, length: int, method: Positions | None = None) -> PositionSpec:
        """Decide positions for a context of up to `length` tokens: the model's own, or those of a plan's method.

        Raises PlanDoesNotApply where the method has nothing to act on.
        """
        return self.places.own(length) if method is None else self.places.chosen(method, length, self.layout)

    # -- running -----------------------------------------------------------------------------------------------

    def forward(self, ids: Tensor, step: Step, positions: PositionSpec | None = None) -> Tensor:
        """ids [ΣT] of a packed batch through all layers -> hidden states [ΣT, hidden] after the final norm."""
        cache = FarspanCache(len(self.layers), positions or self.default_positions, step=step)
        device = self.model.device
        out = self.body(
            input_ids=ids[None].to(device, torch.long),
            position_ids=step.positions[None].to(device),
            past_key_values=cache,
            use_cache=True,
        )
        return out.last_hidden_state[0]

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [n, hidden] after the final norm -> [n, vocabulary], through the model's own head."""
        head = self.model.get_output_embeddings() if self._plain_head else None
        if head is not None:
            return head(hidden[None])[0]
        return _with_body(self.model, self._stem, self._given, hidden[None]).logits[0]

    def look_at_head(self, hidden: Tensor) -> None:
        """See from hidden [n, hidden] whether the model's output embeddings are all that makes logits of them: then
        `logits` asks these directly. A clamp would show on large ones, a scale or a cap on any.
        """
        self._plain_head = False
        wholes = [(states, self.logits(states)) for states in (hidden, 64 * hidden)]
        head = self.model.get_output_embeddings()
        self._plain_head = head is not None and all(torch.equal(head(h[None])[0], whole) for h, whole in wholes)

    def embed(self, ids: Tensor, position_ids: Tensor) -> Tensor:
        """ids [T] at positions [T] -> [T, hidden]: what the model's own forward gives its first layer."""
        device = self.model.device
        entered: dict[str, Tensor] = {}

        def stop(module: nn.Module, args: tuple, kwargs: dict) -> None:
            entered["hidden"] = args[0] if args else kwargs["hidden_states"]
            raise _Entered

        hook = self.layers[0].register_forward_pre_hook(stop, with_kwargs=True)
        try:
            self.body(
                input_ids=ids[None].to(device, torch.long), position_ids=position_ids[None].to(device), use_cache=False
            )
        except _Entered:
            pass
        finally:
            hook.remove()
        return entered["hidden"][0]

    def run_layers(
        self, first: int, last: int, hidden: Tensor, step: Step, positions: PositionSpec | None = None
    ) -> Tensor:
        """Layers first..last (inclusive) on hidden [ΣT, hidden], new entries going to the step's caches."""
        spec = positions or self.default_positions
        cache = FarspanCache(len(self.layers), spec, step=step)
        cache.pairs = self.places.pairs(spec)
        position_ids = step.positions[None].to(hidden.device)
        hidden = hidden[None]
        for index in range(first, last + 1):
            layer = self.layers[index]
            extra = {"position_embeddings": self.places.angles(spec, position_ids, index)} if self.rotaries else {}
            out = layer(
                hidden, attention_mask=None, position_ids=position_ids, past_key_values=cache, use_cache=True, **extra
            )
            hidden = out[0] if isinstance(out, tuple) else out
        return hidden[0]

    def rotate(self, keys: Tensor, moves: Tensor, index: int, positions: PositionSpec | None = None) -> Tensor:
        """See `RotaryPositions.rotate`."""
        return self.places.rotate(keys, moves, index, positions or self.default_positions)

    def place(
        self, keys: Tensor, old: Tensor, new: Tensor, index: int, positions: PositionSpec | None = None
    ) -> Tensor:
        """See `RotaryPositions.place`."""
        return self.places.place(keys, old, new, index, positions or self.default_positions)

    def mean_rotation(self, first: int, last: int, index: int, positions: PositionSpec | None = None) -> Tensor:
        """See `RotaryPositions.mean_rotation`."""
        size = self.layout.layers[index].head_size
        return self.places.mean_rotation(first, last, index, size, positions or self.default_positions)

    @property
    def rotates(self) -> bool:
        """Whether keys carry their positions as rotations, which can then be reckoned with."""
        return self.places.rotates

    def finish(self, hidden: Tensor) -> Tensor:
        """hidden [n, hidden] after the last layer -> after the final norm (and projection, where there is one)."""
        for name in ("norm", "ln_f", "final_layer_norm", "final_norm"):
            norm = getattr(self.body, name, None)
            if isinstance(norm, nn.Module):
                hidden = norm(hidden)
                break
        project = getattr(self.body, "project_out", None)
        return project(hidden) if isinstance(project, nn.Module) else hidden


class Runtime:
    """A prepared model bound to one context's positions: the body that the reader and the decoder run."""

    def __init__(self, prepared: Prepared, positions: PositionSpec) -> None:
        self.prepared, self.positions = prepared, positions

    @property
    def layout(self) -> ModelLayout:
        """What the model is made of."""
        return self.prepared.layout

    def forward(self, ids: Tensor, step: Step) -> Tensor:
        """ids [ΣT] -> hidden [ΣT, hidden] after the final norm."""
        return self.prepared.forward(ids, step, self.positions)

    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        """-> [ΣT, hidden], what enters layer 0."""
        return self.prepared.embed(ids, positions)

    def run_layers(self, first: int, last: int, hidden: Tensor, step: Step) -> Tensor:
        """Layers first..last on hidden [ΣT, hidden]."""
        return self.prepared.run_layers(first, last, hidden, step, self.positions)

    def rotate(self, keys: Tensor, moves: Tensor, index: int) -> Tensor:
        """keys [H, N, D] of one layer -> as they would be `moves` [N] positions further on."""
        return self.prepared.rotate(keys, moves, index, self.positions)

    def place(self, keys: Tensor, old: Tensor, new: Tensor, index: int) -> Tensor:
        """keys [H, N, D] of one layer at positions `old` [N] -> as they would be at positions `new` [N]."""
        return self.prepared.place(keys, old, new, index, self.positions)

    def mean_rotation(self, first: int, last: int, index: int) -> Tensor:
        """-> [D, D] float32: the rotation of one layer averaged over positions first..last, for columns."""
        return self.prepared.mean_rotation(first, last, index, self.positions)

    @property
    def rotations(self) -> Rotations | None:
        """This runtime, where positions are rotated into queries and keys; else None."""
        return self if self.prepared.rotates else None

    def finish(self, hidden: Tensor) -> Tensor:
        """hidden [n, hidden] after the last layer -> after the final norm."""
        return self.prepared.finish(hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [n, hidden] after the final norm -> [n, vocabulary]."""
        return self.prepared.logits(hidden)


def _one_position(position_ids: Tensor) -> int | None:
    """Where the only token of an answer's step stands, known without asking the device; None in any other pass."""
    step = running[-1].step
    if step is None or position_ids.numel() != 1 or not torch.is_inference_mode_enabled():
        return None
    return step.position


class _Entered(Exception):
    """Carries nothing: ends a forward once the first layer's input is known."""


class _Known(tuple[Tensor]):
    """What a body returns, as far as a head looks at it: last hidden states first, and nothing else."""

    @property
    def last_hidden_state(self) -> Tensor:
        """[1, n, hidden]."""
        return self[0]

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


class _Given(nn.Module):
    """Stands in for a model's body: returns hidden states that are already known."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        return self if name == "decoder" else super().__getattr__(name)

    def forward(self, *args: Any, **kwargs: Any) -> _Known:
        """Whatever is asked, the same answer."""
        assert self.hidden is not None
        return _Known((self.hidden,))


def _with_body(model: PreTrainedModel, stem: str, given: _Given, hidden: Tensor) -> Any:
    """The model's own forward, with `hidden` in place of the work of its child `stem`, which holds the body: whatever
    it does after the body (a head, a scale, a cap) happens as it does there. A shallow copy shares every weight; the
    model itself is not touched.
    """
    twin = object.__new__(type(model))
    twin.__dict__.update(model.__dict__)
    twin.__dict__["_modules"] = {**model._modules, stem: given}
    given.hidden = hidden
    try:
        return twin.forward(inputs_embeds=hidden, use_cache=False)
    finally:
        given.hidden = None


def find_layers(model: PreTrainedModel) -> tuple[nn.Module, nn.ModuleList]:
    """-> the module that runs the layers, and the layers."""
    config = model.config.get_text_config(decoder=True)
    for module in model.base_model.modules():
        for child in module.children():
            if isinstance(child, nn.ModuleList) and len(child) == config.num_hidden_layers:
                return module, child
    raise UnsupportedModel(
        f"{type(model).__name__} has no list of {config.num_hidden_layers} layers that farspan can find"
    )
