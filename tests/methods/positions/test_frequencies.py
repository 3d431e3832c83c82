"""Frequencies: worked by hand from the papers' equations, and equal to transformers' own where it has the method."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from farspan.errors import PlanError
from farspan.methods.positions.base import Rope, index_of_turns
from farspan.methods.positions.linear import Linear
from farspan.methods.positions.ntk import Ntk
from farspan.methods.positions.power import Power
from farspan.methods.positions.resonance import Resonance
from farspan.methods.positions.truncated import Truncated
from farspan.methods.positions.yarn import Yarn
from farspan.plan import Plan

THETA, TRAINED = 10_000.0, 512


def rope(pairs: int = 8, base: float = THETA, scale: float = 1.0) -> Rope:
    return Rope(inverse=base ** -(torch.arange(pairs) / pairs), scale=scale)


def their(parameters: dict[str, Any], head_size: int = 16, trained: int = TRAINED, theta: float = THETA) -> Rope:
    """What transformers makes of a configuration."""
    config = LlamaConfig(
        hidden_size=4 * head_size,
        num_attention_heads=4,
        max_position_embeddings=trained,
        rope_parameters={"rope_theta": theta, **parameters},
    )
    module = LlamaRotaryEmbedding(config)
    if parameters["rope_type"] == "dynamic":
        module(torch.zeros(1), torch.tensor([[parameters["seen"] - 1]]))
    return Rope(inverse=module.inv_freq, scale=module.attention_scaling)


def same(a: Rope, b: Rope) -> bool:
    return torch.allclose(a.inverse, b.inverse, rtol=2e-6, atol=0) and math.isclose(a.scale, b.scale, rel_tol=1e-6)


# -- by hand: two pairs, base 10 000, so frequencies 1 and 1/100 ---------------------------------------------------


def test_the_three_slow_down_different_pairs() -> None:
    two = rope(2)
    assert Linear().stretch(two, 640, 4.0).inverse.tolist() == pytest.approx([1 / 4, 1 / 400]), "all of them"
    assert Ntk().stretch(two, 640, 4.0).inverse.tolist() == pytest.approx([1, 1 / 400]), "the slowest, by all of it"
    # 640 tokens: pair 0 goes round 101.9 times, pair 1 1.02 times. Pairs per turn: one ratio of 100, so 32 turns are
    # 0.25 pairs on and 1 turn is 1.004 pairs on; rounded outwards the ramp goes from pair 0 to pair 2.
    made = Yarn().stretch(two, 640, 4.0)
    assert made.inverse.tolist() == pytest.approx([1, (0.5 / 4 + 0.5) / 100]), "half of it"
    assert made.scale == pytest.approx(0.1 * math.log(4) + 1)


def test_the_power_basis_bends_where_ntk_is_even() -> None:
    four = rope(4)  # 1, 1/10, 1/100, 1/1000
    assert Power(exponent=2.0).stretch(four, 640, 4.0).inverse.tolist() == pytest.approx(
        [1, 0.75**2 / 10, 0.5**2 / 100, 0.25**2 / 1000]
    )
    made, even = Power().stretch(four, 640, 4.0).inverse, Ntk().stretch(four, 640, 4.0).inverse
    assert made[-1].item() == pytest.approx(1 / 4000) == even[-1].item(), "the slowest by the factor, both"
    assert made[1].item() == pytest.approx(0.75 / 10) and even[1].item() == pytest.approx(4 ** (-1 / 3) / 10)


def test_the_truncated_basis_stops_what_never_went_round() -> None:
    # 1000 tokens: pairs of 1, 1/10, ..., 1/100 000 go round 159, 15.9, 1.59, 0.159, 0.0159 and 0.00159 times
    six = rope(6, base=1e6)
    made = Truncated().stretch(six, 1000, 4.0)
    assert made.inverse.tolist() == pytest.approx([1, 0.1, 0.01, 2 * math.pi / 1000 / 16, 0, 0])
    assert torch.equal(made.inverse, Truncated().stretch(six, 1000, 9.0).inverse), "the same for every length"
    other = Truncated(whole=10, still=0.01, slow=0.005).stretch(six, 1000, 4.0)
    assert other.inverse.tolist() == pytest.approx([1, 0.1, *[2 * math.pi / 1000 * 0.005] * 3, 0])


def test_resonance_rounds_wavelengths_after_its_base() -> None:
    four = rope(4)  # wavelengths of 6.283, 62.83, 628.3 and 6283 tokens
    plain = Resonance(base="own").stretch(four, 640, 4.0)
    assert (2 * math.pi / plain.inverse).tolist() == pytest.approx([6, 63, 628, 6283])
    slowed = Resonance(base="linear").stretch(four, 640, 4.0)
    assert (2 * math.pi / slowed.inverse).tolist() == pytest.approx([25, 251, 2513, 25133])
    yarn = Yarn().stretch(four, 640, 4.0)
    made = Resonance().stretch(four, 640, 4.0)
    assert made.scale == yarn.scale
    assert torch.allclose(2 * math.pi / made.inverse, (2 * math.pi / yarn.inverse).round(), rtol=1e-6)


@pytest.mark.parametrize("position", [0, 7, 30, 61])
def test_resonance_repeats_features_exactly_where_yarn_does_not(position: int) -> None:
    """The paper's point: positions past training show, in each pair that went round, what training has shown."""
    given_rope = Rope(inverse=torch.tensor([1.0, 0.1, 0.07]))

    def features(made: Rope, at: int) -> torch.Tensor:
        angles = at * made.inverse.double()
        return torch.stack([angles.cos(), angles.sin()])

    def gap(made: Rope) -> float:
        seen = torch.stack([features(made, at) for at in range(100)])  # [100, 2, pairs]
        new = features(made, 10_000 + position)
        return (seen - new).norm(dim=1).amin(0).max().item()

    assert gap(Resonance(base="own").stretch(given_rope, 100, 2.0)) < 2e-3  # float32 frequencies at 10 000
    assert gap(Rope(inverse=given_rope.inverse)) > 4e-3


def test_a_pair_between_is_where_its_turns_say() -> None:
    four = rope(4)  # 1, 1/10, 1/100, 1/1000
    assert four.turns(628).tolist() == pytest.approx([628 / 6.2832, 9.995, 0.9995, 0.09995], rel=1e-3)
    assert index_of_turns(four, 2000, 2000 / (2 * math.pi) / 10) == pytest.approx(1.0, abs=1e-5)
    assert index_of_turns(four, 2000, 2000 / (2 * math.pi) / 10**1.5) == pytest.approx(1.5, abs=1e-5)
    assert index_of_turns(four, 2000, 2000 / (2 * math.pi) / 10**5) == pytest.approx(5.0, abs=1e-5), "beyond the last"
    assert index_of_turns(four, 2000, 2000 / (2 * math.pi) * 10) == pytest.approx(-1.0, abs=1e-5), "before the first"


def test_scales_that_a_model_has_are_kept() -> None:
    assert Linear().stretch(rope(scale=1.5), TRAINED, 2.0).scale == 1.5
    assert Yarn(attention_factor=1.0).stretch(rope(scale=1.5), TRAINED, 2.0).scale == 1.5
    assert Yarn(attention_factor=1.2).stretch(rope(scale=1.5), TRAINED, 2.0).scale == pytest.approx(1.8)


# -- against transformers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
@pytest.mark.parametrize("head_size", [16, 32, 64, 128])
@pytest.mark.parametrize("factor", [1.5, 4.0, 16.0])
def test_linear_and_yarn_are_transformers_own(factor: float, head_size: int, theta: float) -> None:
    own = their({"rope_type": "default"}, head_size, theta=theta)
    linear = their({"rope_type": "linear", "factor": factor}, head_size, theta=theta)
    assert same(Linear().stretch(own, TRAINED, factor), linear)
    parameters = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": TRAINED}
    assert same(Yarn().stretch(own, TRAINED, factor), their(parameters, head_size, theta=theta))
    other = {**parameters, "beta_fast": 16.0, "beta_slow": 2.0, "attention_factor": 1.3}
    chosen = Yarn(beta_fast=16, beta_slow=2, attention_factor=1.3)
    assert same(chosen.stretch(own, TRAINED, factor), their(other, head_size, theta=theta))


@pytest.mark.parametrize("head_size", [16, 64, 128])
@pytest.mark.parametrize("seen", [700, 2048, 9000])
def test_ntk_is_transformers_dynamic_at_the_length_that_makes_the_same_factor(seen: int, head_size: int) -> None:
    own = their({"rope_type": "default"}, head_size)
    given = 2.0
    theirs = their({"rope_type": "dynamic", "factor": given, "seen": seen}, head_size)
    assert same(Ntk().stretch(own, TRAINED, given * seen / TRAINED - (given - 1)), theirs)


@given(pairs=st.integers(1, 64), base=st.floats(100, 1e7), trained=st.integers(64, 1 << 17), factor=st.floats(1, 64))
def test_no_pair_turns_faster_or_slower_than_interpolation(
    pairs: int, base: float, trained: int, factor: float
) -> None:
    given_rope = rope(pairs, base)
    for method in (Linear(), Ntk(), Yarn(), *([Power()] if pairs > 1 else [])):
        share = method.stretch(given_rope, trained, factor).inverse / given_rope.inverse
        assert bool(((share >= 1 / factor - 1e-5) & (share <= 1 + 1e-5)).all())
        assert bool((share.diff() <= 1e-5).all()), "slower pairs are slowed down as much or more"


# -- parameters ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("linear(factor=0.5)", r"linear: factor=0.5 would make the model's reach shorter; give 1 or more"),
        ("ntk(factor=-2)", "factor=-2 would make"),
        ("yarn(beta_fast=1)", "beta_slow=1 and beta_fast=1: the slow end must be above 0 and below the fast one"),
        ("yarn(beta_slow=0)", "must be above 0"),
        ("yarn(attention_factor=0)", "attention_factor=0 must be above 0"),
        ("power(exponent=-1)", "exponent=-1 would turn pairs faster"),
        ("truncated(still=2)", "slow=0.0625, still=2, whole=1: turns must not be negative and must come in this order"),
        ("resonance(base=rope)", "base is one of yarn, ntk, linear, own, not .rope."),
        ("yarn(scale=4)", r"no parameter 'scale'.*It takes factor"),
        ("yarn | ntk", "both fill the slot 'positions'"),
    ],
)
def test_a_mistake_is_named(plan: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Plan.parse(plan)
