"""What a run knows about how far it is."""

from pathlib import Path

import numpy as np
import pytest
import torch

from training import train as recipe
from training.config import Stage
from training.document import FIRST_WEIGHT
from training.mixture import Batch, Length, Mixture

TINY = Stage(lengths=(Length(tokens=128, batch=2, share=1.0),), until=2.0)


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> recipe.Trainer:
    monkeypatch.setattr(recipe, "CURRICULUM", (TINY,))
    return recipe.Trainer(recipe.Settings(config="micro", warmup_steps=1), tmp_path)


def test_a_stop_of_the_process_does_not_count_as_training(
    trainer: recipe.Trainer, mixture: Mixture, monkeypatch: pytest.MonkeyPatch
):
    clock = iter(range(0, 10**9, 10_000))
    monkeypatch.setattr(recipe.time, "monotonic", lambda: float(next(clock)))
    recipe.train(trainer, mixture, steps=3)
    assert trainer.progress.seconds == 3 * recipe.LONGEST_STEP


def test_accuracies_by_kind_count_first_tokens_and_whole_answers(trainer: recipe.Trainer):
    """Two needles, one wrong at its end; a chain, right but for its first token; text does not count."""
    owners = np.array([[0, 0, 1, 1, 0, 2, 2, 0, 3, 3]])
    weights = np.where(owners > 0, 1.0, 0.0).astype(np.float32)
    weights[0, [2, 5, 8]] = FIRST_WEIGHT
    batch = Batch(np.ones((1, 10), dtype=np.int64), weights, owners, ("needle", "needle", "chain"))
    places = torch.tensor([1, 2, 4, 5, 6, 7, 8])
    right = torch.tensor([True, True, True, False, False, False, True])
    trainer.progress.kinds = {"needle": [0.0, 0.0], "chain": [1.0, 1.0]}
    trainer._note_kinds(right, places, batch)
    assert trainer.progress.kinds["needle"] == pytest.approx([0.009975, 0.004975], abs=1e-6)
    assert trainer.progress.kinds["chain"] == pytest.approx([0.995, 0.995], abs=1e-6)


def test_the_kinds_of_a_run_are_kept_with_its_weights(trainer: recipe.Trainer, mixture: Mixture):
    recipe.train(trainer, mixture, steps=2)
    again = recipe.Trainer(trainer.settings, trainer.run)
    assert again.progress.kinds == trainer.progress.kinds != {}


@pytest.mark.parametrize(("decay", "at", "factor"), [(0.0, 59.0, 1.0), (20.0, 45.0, 0.75), (900.0, 30.0, 0.5)])
def test_rates_fall_over_the_last_minutes_only(tmp_path: Path, decay: float, at: float, factor: float):
    trainer = recipe.Trainer(recipe.Settings(config="micro", warmup_steps=1, decay_minutes=decay), tmp_path)
    trainer.progress.seconds = 60 * at
    assert trainer.learning_rate_factor() == pytest.approx(factor)
