"""Tiny models trained to few tokens, and twins that are told the frequencies of a context."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

import farspan
from farspan.context import Context
from farspan.model import Model
from tests.models import tiny, tiny_tokenizer

TRAINED = 128  # what these models believe; the oracle's longest text is about three times as long


def short(kind: str = "llama", trained: int = TRAINED, **config: Any) -> PreTrainedModel:
    """A tiny model that was trained to `trained` tokens, with `config` changed; the same weights each time."""
    base = tiny(kind, vocab_size=len(tiny_tokenizer()))
    changed = {**base.config.to_dict(), "max_position_embeddings": trained, **config}
    model = transformers.AutoModelForCausalLM.from_config(type(base.config).from_dict(changed)).eval()
    model.load_state_dict(base.state_dict())
    return model


def loaded(kind: str = "llama", trained: int = TRAINED, **config: Any) -> Model:
    return farspan.load(short(kind, trained, **config), tokenizer=tiny_tokenizer())


def told(twin: PreTrainedModel, context: Context) -> PreTrainedModel:
    """The twin with the frequencies that the context says it has, put into its own rotary module."""
    placement = context.positions.placement
    assert placement is not None
    for module in twin.modules():
        if type(module).__name__.endswith("RotaryEmbedding"):
            for layer_type, (inverse, scale) in placement.ropes.items():
                prefix = f"{layer_type}_" if layer_type else ""
                setattr(module, f"{prefix}inv_freq", torch.tensor(inverse))
                setattr(module, f"{prefix}attention_scaling", scale)
    return twin
