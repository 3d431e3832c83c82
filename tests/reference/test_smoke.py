"""Ten questions that a broken model cannot answer, and that the way of judging is the way of generating."""

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from farspan import reference
from farspan.measure.statistics import wilson
from training.config import SIZES, build
from training.judge import MODES, judge
from training.probes import Bench, Probe, probes, question_ids
from training.tokenizer import EOS


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(reference.path(), dtype=torch.float32, local_files_only=True).eval()


@pytest.fixture(scope="module")
def ten(bench: Bench) -> list[Probe]:
    return probes(bench.familiar(), "one needle", 1024, share=10 / 64, seed=3)


def needle_hits(model, tokenizer: Tokenizer, made: list[Probe], mode: str = "full") -> int:
    verdicts = [verdict for probe in made for verdict in judge(model, tokenizer, probe, MODES[mode])]
    return sum(verdict.exact for verdict in verdicts if verdict.task == "one needle")


def test_nine_of_ten_needles_are_found_and_the_answer_ends(model, tokenizer: Tokenizer, ten: list[Probe]):
    assert len(ten) == 10
    assert needle_hits(model, tokenizer, ten) >= 9


def test_a_damaged_model_fails_the_same_ten(tokenizer: Tokenizer, ten: list[Probe]):
    damaged = AutoModelForCausalLM.from_pretrained(reference.path(), dtype=torch.float32, local_files_only=True)
    with torch.no_grad():
        damaged.model.layers[2].self_attn.k_proj.weight.mul_(-1)
    assert needle_hits(damaged.eval(), tokenizer, ten) < 9


def test_an_untrained_model_finds_nothing(tokenizer: Tokenizer, ten: list[Probe]):
    assert needle_hits(build(SIZES["micro"]).eval(), tokenizer, ten[:2]) == 0


def test_forgetting_half_of_the_document_costs_answers(model, tokenizer: Tokenizer, ten: list[Probe]):
    assert needle_hits(model, tokenizer, ten, "truncate to half") < needle_hits(model, tokenizer, ten)


def test_the_verdict_is_that_of_greedy_generation(model, tokenizer: Tokenizer, ten: list[Probe]):
    for probe in ten[:3]:
        question = probe.questions[0]
        before, answer, _ = question_ids(tokenizer, question)
        prompt = torch.tensor([probe.example.ids[: probe.example.document_tokens] + before])
        written = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=len(answer), do_sample=False
        )[0, prompt.shape[1] :].tolist()
        assert answer[-1] == EOS
        assert judge(model, tokenizer, probe)[0].exact == (written == answer)


def test_wilson_intervals_match_published_values():
    # Newcombe 1998, table I: 81 of 263 and 0 of 20.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
