"""Tiny random transformers models that feel a missing key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KINDS = ("llama", "qwen3", "mistral", "gemma3", "phi3", "gpt2", "opt")
SCALED = ("gemma2", "gpt_oss")  # what their scores go through besides a factor: a cap, learned sinks
WINDOW = 24  # of the sliding layers of tiny mistral and gemma3


def tiny_model(
    kind: str,
    *,
    layers: int = 3,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    vocab_size: int = 131,
    kv_heads: int = 2,
) -> PreTrainedModel:
    """A random transformers model of 64 hidden units and 4 query heads, the same for the same arguments.

    Query and key weights are scaled by 8 and other matrices by 3, embeddings by nothing; where queries and keys are
    normalised, their norms are scaled instead. At their default initialisation models attend so evenly that losing
    keys moves the logits by less than any tolerance, and a test on them would prove nothing.
    """
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = _config(kind, layers, vocab_size, kv_heads)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        embeddings = id(model.get_input_embeddings().weight)  # also the head of models that tie them
        for name, parameter in model.named_parameters():
            if id(parameter) != embeddings:
                _amplify(name, parameter, kind, config)
            parameter.requires_grad_(False)
            parameter.data = parameter.data.to(dtype)  # not model.to(): rotary frequencies stay float32, as when loaded
    model.config.dtype = dtype
    return model


def _config(kind: str, layers: int, vocab_size: int, kv_heads: int) -> Any:
    import transformers as t

    ids: dict[str, Any] = {"vocab_size": vocab_size, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    sizes: dict[str, Any] = {
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": layers, "num_attention_heads": 4,
        "num_key_value_heads": kv_heads, "max_position_embeddings": 4096,
    }  # fmt: skip
    match kind:
        case "llama":
            return t.LlamaConfig(**ids, **sizes)
        case "qwen3":
            return t.Qwen3Config(**ids, **sizes, head_dim=16)
        case "mistral":
            return t.MistralConfig(**ids, **sizes, sliding_window=WINDOW)
        case "gemma3":
            types = ["full_attention" if i % 2 else "sliding_attention" for i in range(layers)]
            own: dict[str, Any] = {
                "head_dim": 16,
                "query_pre_attn_scalar": 16,
                "sliding_window": WINDOW,
                "layer_types": types,
            }
            return t.Gemma3TextConfig(**ids, **sizes, **own)
        case "gemma2":
            own = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": WINDOW, "attn_logit_softcapping": 3.0}
            return t.Gemma2Config(**ids, **sizes, **own)
        case "gpt_oss":
            own = {"head_dim": 16, "sliding_window": WINDOW, "num_local_experts": 4, "num_experts_per_tok": 2}
            own["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0}
            return t.GptOssConfig(**ids, **sizes, **own)
        case "phi3":
            return t.Phi3Config(**ids, **sizes)
        case "gpt2":
            return t.GPT2Config(**ids, n_embd=64, n_layer=layers, n_head=4, n_positions=1024)
        case "opt":
            own = {"word_embed_proj_dim": 64, "max_position_embeddings": 1024}
            del sizes["intermediate_size"], sizes["num_key_value_heads"], sizes["max_position_embeddings"]
            return t.OPTConfig(**ids, **sizes, **own, ffn_dim=96)
    raise ValueError(f"no tiny model of kind {kind!r}; kinds: {', '.join(KINDS + SCALED)}")


def _amplify(name: str, parameter: Tensor, kind: str, config: Any) -> None:
    if "q_norm" in name or "k_norm" in name:
        parameter.add_(1.0)  # Gemma stores what is added to 1, Qwen the factor itself: doubled either way
    elif name.endswith("sinks"):
        parameter.normal_(1.0, 2.0, generator=torch.Generator().manual_seed(parameter.numel()))
    elif parameter.ndim < 2 or "embed" in name or "wpe" in name:
        return
    elif "qkv_proj" in name:
        queries_and_keys = 16 * (config.num_attention_heads + config.num_key_value_heads)
        parameter[:queries_and_keys].mul_(8)
        parameter[queries_and_keys:].mul_(3)
    elif "c_attn" in name:  # Conv1D: inputs × outputs
        parameter[:, :128].mul_(8)
        parameter[:, 128:].mul_(3)
    else:
        parameter.mul_(8 if "q_proj" in name or "k_proj" in name else 3)
