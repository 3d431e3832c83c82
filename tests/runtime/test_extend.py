"""Encoders past their trained length: transformers' own with the same frequencies, and as before afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel, ModernBertConfig, ModernBertModel, NomicBertConfig, NomicBertModel

import farspan
from farspan.errors import PlanDoesNotApply, PlanError, UsageError
from tests.models import tiny

TRAINED = 32
IDS = torch.arange(3, 93)[None] % 60 + 3
DEFAULT = {"rope_type": "default", "rope_theta": 10_000.0}
SIZES: dict[str, Any] = {
    "vocab_size": 70, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "max_position_embeddings": TRAINED, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "cls_token_id": 1, "sep_token_id": 2,
}  # fmt: skip


def looking(encoder: Any) -> Any:
    """With weights large enough that it matters where a token looks."""
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if parameter.ndim == 2 and "embed" not in name:
                parameter.mul_(8)
    return encoder.eval()


def nomic(rope: dict[str, Any] = DEFAULT) -> Any:
    torch.manual_seed(0)
    return looking(NomicBertModel(NomicBertConfig(**SIZES, rope_parameters=rope)))


def modern(rope: dict[str, Any] = DEFAULT) -> Any:
    """Every third layer has full attention; the others slide, and keep their frequencies."""
    torch.manual_seed(0)
    parameters = {"full_attention": rope, "sliding_attention": DEFAULT}
    return looking(ModernBertModel(ModernBertConfig(**SIZES, rope_parameters=parameters, local_attention=8)))


def embedded(encoder: Any) -> torch.Tensor:
    with torch.inference_mode():
        return encoder(input_ids=IDS).last_hidden_state


@pytest.mark.parametrize("make", [nomic, modern])
@pytest.mark.parametrize(
    ("plan", "rope"),
    [
        ("linear(factor=4)", {"rope_type": "linear", "factor": 4.0}),
        ("yarn(factor=4)", {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": TRAINED}),
    ],
)
def test_it_is_transformers_own_with_the_same_parameters(make: Any, plan: str, rope: dict[str, Any]) -> None:
    encoder, theirs = make(), make({**DEFAULT, **rope})
    before = embedded(encoder)
    with farspan.extend(encoder, plan) as extended:
        assert extended is encoder
        assert torch.allclose(embedded(encoder), embedded(theirs), atol=1e-4)
    assert torch.equal(embedded(encoder), before), "afterwards it is as it was"
    assert (before - embedded(theirs)).abs().max() > 0.1, "extending must matter"


def test_a_length_says_how_far() -> None:
    encoder = nomic()
    with farspan.extend(encoder, "ntk(factor=4)"):
        given = embedded(encoder)
    with farspan.extend(encoder, "ntk", length=4 * TRAINED):
        assert torch.equal(embedded(encoder), given)
    before = embedded(encoder)
    with farspan.extend(encoder, "ntk", length=TRAINED // 2):
        assert torch.allclose(embedded(encoder), before, atol=1e-6), "nothing to extend"


def test_an_error_inside_leaves_it_as_it_was() -> None:
    encoder = nomic()
    before = embedded(encoder)
    with pytest.raises(RuntimeError), farspan.extend(encoder, "linear(factor=4)"):
        raise RuntimeError
    assert torch.equal(embedded(encoder), before)


@pytest.mark.parametrize(
    ("plan", "error", "message"),
    [
        ("ntk", PlanError, r"how far\? Write ntk\(factor=...\), or give length=..."),
        ("snapkv:40", PlanError, "by one positions method, such as ntk"),
        ("ntk(factor=2) | int8", PlanError, "by one positions method"),
        ("selfextend(group=4)", PlanDoesNotApply, "places tokens by pairs"),
    ],
)
def test_a_mistake_is_named(plan: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message), farspan.extend(nomic(), plan):
        pass


def test_models_that_it_is_not_for_are_refused() -> None:
    sizes = {name: value for name, value in SIZES.items() if "token_id" not in name}
    with (
        pytest.raises(PlanDoesNotApply, match="BertModel has no rotary positions"),
        farspan.extend(BertModel(BertConfig(**sizes)), "ntk(factor=2)"),
    ):
        pass
    with (
        pytest.raises(UsageError, match="give the plan to it instead"),
        farspan.extend(farspan.prepare(tiny("llama")), "ntk(factor=2)"),
    ):
        pass
