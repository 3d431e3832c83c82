"""What cannot be held correctly, or loaded safely, is refused by name and with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t

import farspan
from farspan.errors import ModelError, ModelNotFound, OptionError, UnsafeWeights, UnsupportedModel, UsageError
from tests.models import tiny, tiny_tokenizer

IDS: dict[str, Any] = {"vocab_size": 131, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2}


def deepseek() -> Any:
    return t.DeepseekV3Config(
        **IDS, **{**SIZES, "num_key_value_heads": 4}, kv_lora_rank=16, q_lora_rank=16, qk_rope_head_dim=8,
        qk_nope_head_dim=8, v_head_dim=16, n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1,
        first_k_dense_replace=2, moe_intermediate_size=32,
    )  # fmt: skip


def mamba() -> Any:
    return t.MambaConfig(**IDS, hidden_size=64, num_hidden_layers=2, state_size=8)


def jamba() -> Any:
    return t.JambaConfig(
        **IDS, **SIZES, **EXPERTS, attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2,
        mamba_d_state=8, use_mamba_kernels=False,
    )  # fmt: skip


def qwen3_next() -> Any:
    return t.Qwen3NextConfig(
        **IDS, **SIZES, **EXPERTS, head_dim=16, linear_num_key_heads=2, linear_num_value_heads=4,
        linear_key_head_dim=16, linear_value_head_dim=16, moe_intermediate_size=32,
        shared_expert_intermediate_size=32, layer_types=["linear_attention", "full_attention"],
    )  # fmt: skip


REFUSED = {
    "DeepSeek-V3": (deepseek, "holds latents, not keys"),
    "Mamba": (mamba, "recurrent state"),
    "Jamba": (jamba, "recurrent state"),
    "Qwen3-Next": (qwen3_next, "recurrent state"),
    "BLOOM": (lambda: t.BloomConfig(**IDS, hidden_size=64, n_layer=2, n_head=4), "ALiBi"),
    "MPT": (lambda: t.MptConfig(**IDS, d_model=64, n_layers=2, n_heads=4, max_seq_len=256), "ALiBi"),
    "Falcon": (
        lambda: t.FalconConfig(**IDS, hidden_size=64, num_hidden_layers=2, num_attention_heads=4), "ALiBi",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # these models' own, about fast paths that are not installed
@pytest.mark.parametrize("name", REFUSED)
def test_architectures_that_cannot_be_held_are_refused_by_name(name: str) -> None:
    config, reason = REFUSED[name]
    model = t.AutoModelForCausalLM.from_config(config()).eval()
    with pytest.raises(UnsupportedModel, match=reason) as error:
        farspan.prepare(model)
    assert type(model).__name__ in str(error.value)
    assert model.config._attn_implementation != "farspan", "a refused model is left as it was"


def test_encoder_decoders_are_no_causal_models() -> None:
    config = t.T5Config(vocab_size=131, d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4)
    with pytest.raises(UnsupportedModel, match="not a causal language model"):
        farspan.prepare(t.T5ForConditionalGeneration(config).eval())


def test_an_attention_keyword_that_is_not_handled_is_refused_when_it_comes() -> None:
    """Whatever the name of the architecture: a model that passes an unknown keyword is not computed without it."""
    model = tiny("llama")
    attention = model.model.layers[0].self_attn

    def with_keyword(module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return args, {**kwargs, "brand_new": 30.0}

    attention.register_forward_pre_hook(with_keyword, with_kwargs=True)
    with pytest.raises(UnsupportedModel, match="'brand_new'"):
        farspan.prepare(model)


# -- loading -------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder as transformers writes it."""
    tiny("llama", vocab_size=len(tiny_tokenizer())).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    return tmp_path


def test_a_saved_model_loads_in_the_dtype_that_was_asked_for(folder: Path) -> None:
    assert farspan.load(folder).hf.dtype == torch.float32
    assert farspan.load(str(folder), dtype="bfloat16").hf.dtype == torch.bfloat16
    assert farspan.load(folder, dtype=torch.float16).hf.dtype == torch.float16


def test_a_loaded_model_needs_its_tokenizer() -> None:
    with pytest.raises(OptionError, match="tokenizer=tokenizer"):
        farspan.load(tiny("llama"))


def test_an_unknown_dtype_is_said_with_the_known_ones(folder: Path) -> None:
    with pytest.raises(OptionError, match="bfloat16"):
        farspan.load(folder, dtype="bflaot16")
    with pytest.raises(OptionError, match="allowed"):
        farspan.load(folder, dtype=torch.int8)


def test_device_and_device_map_exclude_each_other(folder: Path) -> None:
    with pytest.raises(OptionError, match="not both"):
        farspan.load(folder, device="cpu", device_map="auto")
    with pytest.raises(UsageError, match="cannot be used"):
        farspan.load(folder, device="nowhere")


def test_a_missing_path_suggests_its_neighbour(folder: Path) -> None:
    missing = folder.parent / (folder.name + "x")
    with pytest.raises(ModelNotFound, match=f"Did you mean '{folder.name}'"):
        farspan.load(missing)


def test_what_is_no_model_folder_says_what_one_is(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"no config\.json"):
        farspan.load(tmp_path)
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(ModelNotFound, match="is a file"):
        farspan.load(tmp_path / "notes.txt")


def test_pickled_weights_are_not_read(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UnsafeWeights, match="pickle can run any code"):
        farspan.load(folder)


def test_a_folder_without_weights_says_so(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelNotFound, match=r"no \*\.safetensors"):
        farspan.load(folder)


def test_code_from_a_models_own_repository_is_never_run(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "theirs.TheirConfig", "AutoModelForCausalLM": "theirs.TheirModel"}
    config["model_type"] = "theirs"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "theirs.py").write_text("raise SystemExit('this code was run')\n")
    with pytest.raises(UnsafeWeights, match="never runs"):
        farspan.load(folder)


def test_an_architecture_nobody_knows_is_unsupported(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "unheard_of"}))
    with pytest.raises(UnsupportedModel, match="unheard_of"):
        farspan.load(folder)


def test_damaged_weights_are_said_to_be(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="are damaged"):
        farspan.load(folder)


def test_weights_that_lack_are_not_made_up(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.self_attn.q_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"incomplete: 1 tensors lack, such as model\.layers\.1"):
        farspan.load(folder)


def test_weights_of_another_shape_are_no_traceback(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
    with pytest.raises(ModelError, match=r"do not fit its config\.json"):
        farspan.load(folder)


@pytest.mark.parametrize("step", ["_probe", "_compare"])
def test_a_model_that_is_refused_is_left_as_it_was_found(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise UnsupportedModel("not this one")

    model = tiny("llama")
    before = model.config._attn_implementation
    monkeypatch.setattr(f"farspan.runtime.hf_inspect.{step}", refuse)
    with pytest.raises(UnsupportedModel, match="not this one"):
        farspan.prepare(model)
    assert model.config._attn_implementation == before
    hooks = [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert not hooks
