"""A folder of a Llama's weights as the one file that llama.cpp reads: run in the environment of `llama_cpp.txt`.

bfloat16 matrices stay as they are, bit for bit; norms become float32, which is what llama.cpp wants. Its Llama turns
neighbouring dimensions where transformers turns the two halves of a head, so rows of the query and key matrices change
places. The vocabulary has names and no meaning: token ids are all that is exchanged.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """rows [heads · D, ...] of a projection -> the same, the halves of each head's rows taken in turn."""
    halves = rows.reshape(heads, 2, -1, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def named(theirs: str) -> str:
    """A tensor's name in transformers -> its name in llama.cpp."""
    outer = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    name = theirs.removesuffix(".weight")
    if name in outer:
        return f"{outer[name]}.weight"
    _, _, layer, inner = name.split(".", 3)
    return f"blk.{layer}.{NAMES[inner]}.weight"


def tensors(folder: Path) -> dict[str, np.ndarray]:
    """Weights of all safetensors files of a folder, bfloat16 as uint16."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        raw = np.memmap(file, np.uint8, "r")
        size = int(raw[:8].view("<u8")[0])
        for name, its in json.loads(raw[8 : 8 + size].tobytes()).items():
            if name == "__metadata__":
                continue
            if its["dtype"] != "BF16":
                raise ValueError(f"{name} is {its['dtype']}; only BF16 weights are written")
            start, stop = its["data_offsets"]
            found[name] = raw[8 + size + start : 8 + size + stop].view("<u2").reshape(its["shape"])
    return found


def write(folder: Path, file: Path) -> None:
    """Write the model that lies in `folder`."""
    import gguf

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    heads, groups, size = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(groups)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"<{i}>" for i in range(config["vocab_size"])])
    writer.add_token_scores([0.0] * config["vocab_size"])
    writer.add_token_types([gguf.TokenType.NORMAL] * config["vocab_size"])
    for name, weight in tensors(folder).items():
        if weight.ndim == 1:
            writer.add_tensor(named(name), (weight.astype(np.uint32) << 16).view(np.float32))
            continue
        if "q_proj" in name or "k_proj" in name:
            weight = interleaved(weight, heads if "q_proj" in name else groups)
        as_bytes = np.ascontiguousarray(weight).view(np.uint8)
        writer.add_tensor(named(name), as_bytes, raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
