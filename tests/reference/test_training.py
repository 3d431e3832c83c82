"""Training that was stopped goes on exactly where it was."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from farspan import reference
from training import train as recipe
from training.config import CURRICULUM, SIZES, Stage, build
from training.mixture import LAST_LENGTHS, LENGTHS, Length, Mixture
from training.pack import pack

TINY = Stage(lengths=(Length(tokens=128, batch=2, share=1.0),), until=2.0)


@pytest.fixture(autouse=True)
def short_sequences(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recipe, "CURRICULUM", (TINY,))


def trainer(run: Path) -> recipe.Trainer:
    return recipe.Trainer(recipe.Settings(config="micro", warmup_steps=1, log_every=1), run)


def fixed_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe.time, "monotonic", lambda: 0.0)


def test_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(
    tmp_path: Path, mixture: Mixture, monkeypatch: pytest.MonkeyPatch
):
    fixed_clock(monkeypatch)
    whole = trainer(tmp_path / "whole")
    recipe.train(whole, mixture, steps=4)
    recipe.train(trainer(tmp_path / "parts"), mixture, steps=2)
    resumed = trainer(tmp_path / "parts")
    assert resumed.progress.step == 2
    recipe.train(resumed, mixture, steps=2)
    assert resumed.progress.tokens == whole.progress.tokens
    for (name, expected), found in zip(
        whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=0, msg=name)
    lines = [json.loads(line) for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]


def test_the_clock_ends_a_run_and_the_rate_has_then_fallen_to_zero(tmp_path: Path):
    run = trainer(tmp_path)
    run.progress.step = 10
    assert run.learning_rate_factor() == 1.0
    run.progress.seconds = 60 * (run.settings.minutes - run.settings.decay_minutes)
    assert run.learning_rate_factor() == 1.0
    run.progress.seconds = 60 * (run.settings.minutes - run.settings.decay_minutes / 2)
    assert run.learning_rate_factor() == pytest.approx(0.5)
    run.progress.seconds = 60 * run.settings.minutes
    assert run.learning_rate_factor() == 0.0
    recipe.train(run, None)  # type: ignore[arg-type]  # no time left: no batch is asked for
    assert run.progress.step == 10


def test_sequences_grow_when_the_rates_fall(tmp_path: Path):
    run = trainer(tmp_path)
    assert not run.falling
    run.progress.seconds = 60 * (run.settings.minutes - run.settings.decay_minutes) + 1
    assert run.falling

    def mean(lengths: Sequence[Length]) -> float:
        return sum(each.tokens * each.share for each in lengths)

    assert mean(LAST_LENGTHS) > 1.5 * mean(LENGTHS)
    assert {each.tokens for each in LENGTHS} == {each.tokens for each in LAST_LENGTHS}
    assert all(each.tokens * each.batch == 8192 for each in (*LENGTHS, *LAST_LENGTHS))


def test_text_counts_little_and_padding_not_at_all():
    ids = torch.tensor([[1, 5, 6, 7, 0, 0]])
    weights = torch.tensor([[0.0, 0.0, 2.0, 0.0, 0.0, 0.0]])
    chosen = [recipe.choose(ids, weights, seed=1, step=step) for step in range(50)]
    assert all(1 in each for each in chosen)
    assert not any((each >= 3).any() for each in chosen)
    assert 0 < sum(0 in each for each in chosen) < 25
    assert recipe.shares(torch.tensor([2.0, 0.0, 0.0])).tolist() == pytest.approx([2 / 2.6, 0.3 / 2.6, 0.3 / 2.6])


def test_the_sizes_keep_their_promises():
    assert sum(p.numel() for p in build(SIZES["small"]).parameters()) == 3_410_176
    large = sum(p.numel() for p in build(SIZES["large"]).parameters())
    assert large <= 12_000_000
    assert 2 * large <= 25_000_000
    assert CURRICULUM[-1].until > 1


def test_packing_replaces_the_model_and_its_hashes(tmp_path: Path):
    package = tmp_path / "package"
    (package / "model").mkdir(parents=True)
    (package / "model" / "left-over.bin").write_bytes(b"old")
    build(SIZES["micro"]).save_pretrained(tmp_path / "checkpoint")
    pack(tmp_path / "checkpoint", reference.path() / "tokenizer.json", package)
    reference.verify(package)
    assert not (package / "model" / "left-over.bin").exists()
    assert [file.name for file in package.iterdir() if file.name.startswith(".")] == []
    loaded = AutoModelForCausalLM.from_pretrained(package / "model", local_files_only=True)
    assert loaded.dtype == torch.bfloat16
