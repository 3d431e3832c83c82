"""Random Llamas of two sizes: what is measured is time and memory, and neither depends on what weights say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import farspan


def loaded(make: Callable[[int], LlamaForCausalLM]) -> farspan.Model:
    """A model under farspan, with the embedded model's tokenizer."""
    tokenizer = farspan.load().tokenizer
    return farspan.load(make(len(tokenizer)), tokenizer=tokenizer)


def big(vocabulary: int) -> LlamaForCausalLM:
    """0.4B parameters: matrix products and attention weigh what they weigh in real models."""
    return _llama(vocabulary, hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16)


def small(vocabulary: int) -> LlamaForCausalLM:
    """28M parameters: what a framework does around the products shows."""
    return _llama(vocabulary, hidden_size=512, intermediate_size=1664, num_hidden_layers=8, num_attention_heads=8)


def _llama(vocabulary: int, **sizes: Any) -> LlamaForCausalLM:
    """bfloat16, four queries to a key-value head."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        num_key_value_heads=sizes["num_attention_heads"] // 4,
        head_dim=64,
        max_position_embeddings=131072,
        rope_parameters={"rope_type": "default", "rope_theta": 5e5},
        tie_word_embeddings=True,
        **sizes,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.to(torch.bfloat16)  # type: ignore[arg-type]
    return model.eval()
