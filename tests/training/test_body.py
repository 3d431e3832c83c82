"""The fast step computes what transformers computes."""

import pytest
import torch
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from training import kernel
from training.body import Shape, cast, hidden_states, rotations
from training.config import SIZES, build
from training.head import CHUNK, HeadLoss
from training.kernel import BLOCK
from training.muon import BatchedMuon

needs_kernel = pytest.mark.skipif(kernel.library() is None, reason="no AMX, or no compiler")


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


@needs_kernel
@pytest.mark.parametrize(
    ("batch", "tokens", "heads", "kv_heads"), [(2, BLOCK, 2, 1), (1, 2 * BLOCK, 4, 4), (3, 320, 8, 4)]
)
def test_the_kernel_has_the_outputs_and_gradients_of_exact_attention(
    batch: int, tokens: int, heads: int, kv_heads: int
):
    torch.manual_seed(tokens)
    sizes = [(batch, tokens, count, kernel.HEAD_DIM) for count in (heads, kv_heads, kv_heads, heads)]
    queries, keys, values, grad = ((2 * torch.randn(size)).bfloat16() for size in sizes)
    inputs = [each.requires_grad_() for each in (queries, keys, values)]
    exact = [each.detach().float().requires_grad_() for each in inputs]
    turned = (each.transpose(1, 2) for each in exact)
    expected = scaled_dot_product_attention(*turned, is_causal=True, enable_gqa=True).transpose(1, 2)
    found = kernel.causal_attention(*inputs)[0]
    pairs = zip(
        ("out", "queries", "keys", "values"),
        (found, *torch.autograd.grad(found, inputs, grad)),
        (expected, *torch.autograd.grad(expected, exact, grad.float())),
        strict=True,
    )
    for name, one, other in pairs:
        assert (one.float() - other).norm() < 0.008 * other.norm(), name


@needs_kernel
def test_the_kernel_never_looks_ahead():
    torch.manual_seed(0)
    queries, keys, values = (torch.randn(1, 128, 2, kernel.HEAD_DIM).bfloat16() for _ in range(3))
    before = kernel.causal_attention(queries, keys, values)[0]
    keys[:, 70:], values[:, 70:] = 5.0, -5.0
    after = kernel.causal_attention(queries, keys, values)[0]
    torch.testing.assert_close(after[:, :70], before[:, :70], rtol=0, atol=0)
    assert not torch.equal(after[:, 70], before[:, 70])


@pytest.mark.parametrize("count", [3, CHUNK, CHUNK + 100])
def test_the_loss_and_its_gradients_are_those_of_cross_entropy(count: int):
    torch.manual_seed(count)
    hidden, words = torch.randn(count, 32).bfloat16().requires_grad_(), torch.randn(96, 32, requires_grad=True)
    targets, shares = torch.randint(0, 96, (count,)), torch.rand(count)
    loss, right = HeadLoss.apply(hidden, words, targets, shares, False)  # type: ignore[misc]
    exact = hidden.detach().float().requires_grad_()
    logits = exact @ words.bfloat16().float().T
    expected = (cross_entropy(logits, targets, reduction="none") * shares).sum()
    torch.testing.assert_close(loss, expected, rtol=0.01, atol=0.01)
    assert (right == (logits.argmax(-1) == targets)).float().mean() > 0.98
    found = torch.autograd.grad(3 * loss, (hidden, words))
    for one, other in zip(found, torch.autograd.grad(3 * expected, (exact, words)), strict=True):
        assert (one.float() - other).norm() < 0.01 * other.norm()


def test_matrices_together_get_the_updates_of_torchs_muon():
    torch.manual_seed(0)
    shapes = ((32, 32), (64, 32), (64, 32), (16, 32), (32, 64), (32, 32))
    ours, theirs = ([torch.nn.Parameter(torch.ones(shape)) for shape in shapes] for _ in range(2))
    settings = {"lr": 0.01, "momentum": 0.95, "weight_decay": 0.01, "adjust_lr_fn": "original"}
    one, other = BatchedMuon(ours, **settings), torch.optim.Muon(theirs, **settings)
    for _ in range(3):
        for mine, its in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape)
            its.grad = mine.grad.clone()
        one.step()
        other.step()
    for mine, its in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, its, rtol=0, atol=2e-4)
        assert not torch.equal(mine, torch.ones_like(mine))
    assert other.state_dict().keys() == one.state_dict().keys()
