"""The fast step computes what transformers computes."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from training.attention import BLOCK, CausalAttention
from training.body import Shape, cast, hidden_states, rotations
from training.config import SIZES, build


@pytest.mark.parametrize("tokens", [40, BLOCK, 2 * BLOCK])
def test_the_body_agrees_with_transformers(tokens: int):
    torch.manual_seed(0)
    model = build(SIZES["micro"]).eval()
    ids = torch.randint(3, 4096, (2, tokens))
    shape = Shape.of(model)
    with torch.no_grad():
        found = hidden_states(cast(model), ids, *rotations(tokens, shape), shape).float()
        expected = model.model(input_ids=ids, use_cache=False).last_hidden_state
    torch.testing.assert_close(found, expected, atol=0.06, rtol=0.05)
    assert torch.nn.functional.cosine_similarity(found, expected, dim=-1).min() > 0.999


def test_gradients_reach_the_float32_weights():
    torch.manual_seed(0)
    model = build(SIZES["micro"])
    shape = Shape.of(model)
    ids = torch.randint(3, 4096, (2, BLOCK))
    hidden_states(cast(model), ids, *rotations(BLOCK, shape), shape).float().square().mean().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.model.parameters())


@pytest.mark.parametrize("tokens", [BLOCK, 3 * BLOCK])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_has_the_gradients_of_torch(tokens: int, kv_heads: int):
    torch.manual_seed(tokens)
    queries, grad = torch.randn(2, 4, tokens, 8, requires_grad=True), torch.randn(2, 4, tokens, 8)
    keys, values = (torch.randn(2, kv_heads, tokens, 8, requires_grad=True) for _ in range(2))
    inputs = (queries, keys, values)
    expected = scaled_dot_product_attention(*inputs, is_causal=True, enable_gqa=True)
    found = CausalAttention.apply(*inputs)
    torch.testing.assert_close(found, expected)
    for name, one, other in zip(
        ("queries", "keys", "values"),
        torch.autograd.grad(found, inputs, grad),
        torch.autograd.grad(expected, inputs, grad),
        strict=True,
    ):
        torch.testing.assert_close(one, other, msg=name, atol=1e-5, rtol=1e-4)
