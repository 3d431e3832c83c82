"""Weights in another form: products near those of the plain layers, everything else as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import farspan
from farspan.errors import OptionError
from farspan.runtime.hf_weights import FEW, Int8Linear, PackedLinear, can_pack
from tests.models import tiny, tiny_tokenizer

KINDS = ["llama", "qwen3", "gemma3", "phi3", "opt"]
packed_here = pytest.mark.skipif(not can_pack(), reason="torch cannot pack bfloat16 here")


def linear(bias: bool = True, dtype: torch.dtype = torch.float32, size: int = 48) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(size, 56, bias=bias).to(dtype)


def loaded(kind: str = "llama", dtype: torch.dtype = torch.float32, **options: Any) -> farspan.Model:
    tokenizer = tiny_tokenizer()
    return farspan.load(nn.Module.to(tiny(kind, vocab_size=len(tokenizer)), dtype), tokenizer=tokenizer, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [1, FEW, FEW + 1, 33])
@pytest.mark.parametrize(("bias", "size"), [(False, 48), (True, 48), (True, 40)])
@torch.inference_mode()
def test_int8_products_are_those_of_the_codes(dtype: torch.dtype, rows: int, bias: bool, size: int):
    plain = linear(bias, dtype, size)
    coded, x = Int8Linear(plain), torch.randn(1, rows, size).to(dtype)
    turned_back = coded.codes.double() * coded.scale.double()[:, None]
    expected = x.double() @ turned_back.T + (plain.bias.double() if plain.bias is not None else 0)
    torch.testing.assert_close(coded(x).double(), expected, rtol=0, atol=8 * torch.finfo(dtype).eps * 2)
    assert coded(x).shape == (1, rows, 56)


def test_a_code_is_off_by_half_a_step_at_most():
    plain = linear()
    plain.weight.data[3] = 0.0
    coded = Int8Linear(plain)
    error = (coded.codes.double() * coded.scale.double()[:, None] - plain.weight.double()).abs()
    assert (error <= 0.501 * coded.scale.double()[:, None]).all()
    assert coded.codes.nbytes + coded.scale.nbytes == 48 * 56 + 4 * 56


@packed_here
@torch.inference_mode()
def test_packed_products_are_the_same_numbers():
    plain = linear(dtype=torch.bfloat16)
    for rows in (1, 7, 64):
        x = torch.randn(1, rows, 48).bfloat16()
        torch.testing.assert_close(PackedLinear(plain)(x), plain(x), rtol=0, atol=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_every_linear_layer_of_the_layers_changes_and_nothing_else(kind: str):
    before = {name: type(child) for name, child in loaded(kind).hf.named_modules()}
    model = loaded(kind, weights="int8")
    after = {name: type(child) for name, child in model.hf.named_modules()}
    inside = {name for name, was in before.items() if was is nn.Linear and ".layers." in name}
    assert inside and {name for name in before if after[name] is Int8Linear} == inside
    assert all(after[name] is was for name, was in before.items() if name not in inside)


@pytest.mark.parametrize("form", ["int8", pytest.param("packed", marks=packed_here)])
def test_contexts_read_and_answer_near_the_plain_model(tmp_path: Path, form: str):
    text = "The gateway listens on port 8443, and the archive keeps every letter for seven years. " * 9
    plain, other = (loaded(dtype=torch.bfloat16, weights=weights) for weights in (None, form))
    assert other.weights == form and f"weights {form}" in repr(other)
    assert other.fingerprint == plain.fingerprint
    context = plain.read(text)
    here, there = (model.read(text).score("seven years").logprobs for model in (plain, other))
    assert here == pytest.approx(there, abs=0.1)
    opened = other.open(context.save(tmp_path / "a.ctx"))
    assert opened.ask("Which port?", max_new_tokens=4).token_ids


def test_what_cannot_be_had_is_said():
    with pytest.raises(OptionError, match=r"weights 'int9' are unknown; allowed: int8, packed.*Did you mean 'int8'"):
        farspan.load(weights="int9")
    with pytest.raises(OptionError, match=r"this model has none"):
        loaded("gpt2", weights="int8")
    if can_pack():
        with pytest.raises(OptionError, match=r"bfloat16 on the CPU; these are torch.float32"):
            loaded(weights="packed")
