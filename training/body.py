"""The Llama body as one function of its weights: what transformers computes, in a form that compiles to few kernels.

Weights are kept in float32 and cast once per step; activations are bfloat16, as the packed model's are. With fixed
shapes `torch.compile` fuses norms, rotations and activations, which cost more than the products at this size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear, scaled_dot_product_attention, silu
from transformers import LlamaForCausalLM

from training import kernel

Weights = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the function must know beside the weights."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    epsilon: float
    theta: float
    kernel: bool
    """Whether attention is ours (training.kernel) or torch's."""

    @classmethod
    def of(cls, model: LlamaForCausalLM) -> Shape:
        config: Any = model.config
        return cls(
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            epsilon=config.rms_norm_eps,
            theta=config.rope_parameters["rope_theta"],
            kernel=kernel.fits(model.device, config.head_dim),
        )


def cast(model: LlamaForCausalLM) -> Weights:
    """The body's weights by name, matrices in bfloat16; gradients flow back to the float32 ones."""
    named = model.model.named_parameters()
    return {name: p if "embed" in name else p.to(torch.bfloat16) for name, p in named}


def rotations(tokens: int, shape: Shape, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Cosines and sines `[tokens, 1, head_dim]` of every position, in bfloat16."""
    exponents = torch.arange(0, shape.head_dim, 2, device=device).float() / shape.head_dim
    angles = torch.arange(tokens, device=device).float()[:, None] / shape.theta**exponents
    doubled = torch.cat([angles, angles], dim=-1)[:, None]
    return doubled.cos().bfloat16(), doubled.sin().bfloat16()


def hidden_states(weights: Weights, ids: Tensor, cos: Tensor, sin: Tensor, shape: Shape) -> Tensor:
    """`[B, T]` ids -> `[B, T, hidden]` after the last norm."""
    x = embedding(ids, weights["embed_tokens.weight"]).bfloat16()
    for layer in range(shape.layers):
        own = {name: weights[f"layers.{layer}.{name}.weight"] for name in PARTS}
        x = x + _attend(_norm(x, own["input_layernorm"], shape.epsilon), own, cos, sin, shape)
        y = _norm(x, own["post_attention_layernorm"], shape.epsilon)
        gate, up = linear(y, torch.cat([own["mlp.gate_proj"], own["mlp.up_proj"]])).chunk(2, dim=-1)
        x = x + linear(silu(gate) * up, own["mlp.down_proj"])
    return _norm(x, weights["norm.weight"], shape.epsilon)


PARTS = (
    "input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip


def _norm(x: Tensor, scale: Tensor, epsilon: float) -> Tensor:
    exact = x.float()
    return scale * (exact * torch.rsqrt(exact.square().mean(-1, keepdim=True) + epsilon)).bfloat16()


def _attend(x: Tensor, own: Weights, cos: Tensor, sin: Tensor, shape: Shape) -> Tensor:
    batch, tokens, _ = x.shape
    counts = (shape.heads, shape.kv_heads, shape.kv_heads)
    joint = torch.cat([own[f"self_attn.{name}_proj"] for name in "qkv"])
    heads = linear(x, joint).view(batch, tokens, sum(counts), shape.head_dim)
    q, k, v = heads.split(counts, dim=2)
    q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
    if shape.kernel and tokens % kernel.BLOCK == 0:
        mixed: Any = kernel.causal_attention(q, k, v)[0]
    else:
        turned = (each.transpose(1, 2) for each in (q, k, v))
        mixed = scaled_dot_product_attention(*turned, is_causal=True, enable_gqa=True).transpose(1, 2)
    return linear(mixed.reshape(batch, tokens, -1), own["self_attn.o_proj"])


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


Body = Callable[[Weights, Tensor, Tensor, Tensor, Shape], Tensor]


def compiled() -> Body:
    """`hidden_states`, compiled anew for each length of a mixture: batches have the same few shapes for hours."""
    return torch.compile(hidden_states, dynamic=False)
