"""Finding out what a model is made of, and refusing by name what cannot be held correctly."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from farspan.errors import UnsupportedModel
from farspan.runtime.hf import Prepared
from farspan.runtime.hf_cache import FarspanCache
from farspan.runtime.layout import LayerLayout, ModelLayout
from farspan.runtime.step import Row, Step

PROBE_TOKENS = 9
ALIBI = {"bloom", "mpt", "falcon"}
RECURRENT = ("linear_attention", "mamba", "recurrent", "conv", "lightning", "hybrid")
ATTRIBUTE = "_farspan_prepared"


def prepare_model(model: PreTrainedModel) -> Prepared:
    """Plug farspan into a transformers causal LM, once; raises UnsupportedModel naming what is in the way.

    The model keeps working as before without a farspan context; a refused one is left as it was found. What it is made
    of is read off one forward pass of nine tokens, whose logits must equal those of its own attention.
    """
    known = getattr(model, ATTRIBUTE, None)
    if known is not None:
        return known
    refuse_by_name(model)
    model.eval()
    with torch.inference_mode():
        vocabulary = model.config.get_text_config(decoder=True).vocab_size
        ids = (torch.arange(PROBE_TOKENS, device=model.device)[None] + vocabulary // 2) % vocabulary
        expected = model(input_ids=ids, use_cache=False).logits[0]
        prepared = Prepared(model)
        prepared.plug_in()
        try:
            layers, logits = _probe(prepared, ids[0])
            _compare(model, expected, logits)
        except BaseException:
            prepared.unplug()
            raise
    trained = prepared.trained_length
    prepared.layout = ModelLayout(layers, model.dtype, prepared.config.hidden_size, trained)
    prepared.default_positions = prepared.positions(trained or 1)
    setattr(model, ATTRIBUTE, prepared)
    return prepared


def _probe(prepared: Prepared, ids: Tensor) -> tuple[tuple[LayerLayout, ...], Tensor]:
    """One forward through our step -> what each layer stores, and the logits."""
    seen: dict[int, LayerLayout] = {}

    def watch(index: int, query: Tensor, keys: Tensor, values: Tensor, scaling: float, window: int | None) -> None:
        if index in seen:
            raise UnsupportedModel(f"layer {index} of {type(prepared.model).__name__} stores keys twice in one forward")
        seen[index] = LayerLayout(keys.shape[1], query.shape[1], keys.shape[3], values.shape[3], window, scaling)

    count = len(prepared.layers)
    blank = ModelLayout(tuple(LayerLayout(1, 1, 1, 1, None, 1.0) for _ in range(count)), prepared.model.dtype, 1, None)
    step = Step([Row(blank.empty(), ids.numel())])
    positions = prepared.positions(ids.numel())  # as the model's own forward of so many tokens decides them
    cache = FarspanCache(count, positions, step=step)
    cache.watch = watch
    out = prepared.body(
        input_ids=ids[None], position_ids=step.positions[None].to(ids.device), past_key_values=cache, use_cache=True
    )
    missing = [i for i in range(count) if i not in seen]
    if missing:
        raise UnsupportedModel(
            f"layers {missing} of {type(prepared.model).__name__} hold no keys of their own (state shared between "
            "layers, or not kept in the cache), so farspan cannot hold them"
        )
    hidden = out.last_hidden_state[0]
    prepared.look_at_head(hidden)
    return tuple(seen[i] for i in range(count)), prepared.logits(hidden)


def _compare(model: PreTrainedModel, expected: Tensor, logits: Tensor) -> None:
    tolerance = 1e-4 if model.dtype == torch.float32 else 0.1
    gap = (expected.float() - logits.float()).abs().max().item()
    if not gap <= tolerance * max(1.0, expected.abs().max().item()):
        raise UnsupportedModel(
            f"{type(model).__name__} gives other logits through farspan's attention (they differ by {gap:.2g} on "
            f"{PROBE_TOKENS} tokens): its attention does something that the attention interface does not say"
        )


def refuse_by_name(model: PreTrainedModel) -> None:
    """Raise UnsupportedModel with the reason for architectures known to hold what we cannot."""
    config = model.config.get_text_config(decoder=True)
    name, kind = type(model).__name__, config.model_type
    reason = None
    if model.config.is_encoder_decoder or not model.can_generate():
        reason = "it is not a causal language model (decoder only)"
    elif getattr(config, "kv_lora_rank", None):
        reason = "its cache holds latents, not keys (multi-head latent attention)"
    elif kind in ALIBI:
        reason = "its attention does not go through transformers' attention interface (ALiBi or its own code)"
    elif _recurrent(config):
        reason = "some of its layers hold recurrent state, which cannot be evicted, shared or re-read by position"
    if reason is not None:
        raise UnsupportedModel(f"{name} ({kind}) cannot be used: {reason}.")


def _recurrent(config: Any) -> bool:
    layer_types = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None) or ()
    if any(word in str(kind) for kind in layer_types for word in RECURRENT):
        return True
    markers = ("mamba_d_state", "mamba_expand", "ssm_state_size", "state_size", "time_step_rank", "lru_width")
    return any(getattr(config, marker, None) for marker in markers)
