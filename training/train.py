"""Train the reference model: `python -m training.train --minutes 60 --init src/farspan/reference/model`.

Muon for the matrices, AdamW for embeddings and norms; learning rates warm up, stay, and fall to zero over the last
`--decay-minutes` of `--minutes`, so that the same run can be given more minutes for days and be ended when wanted.
Answers are weighted over text. The run directory holds everything to go on from (`state.pt`), a log of one JSON object
per line (`log.jsonl`) and the model in transformers format (`model/`); the same command again resumes. On a GPU:
`--config large --device cuda --compile --workers 12 --scale 16` (untested there). On a CPU `--compile --threads N` with
`OMP_WAIT_POLICY=PASSIVE`, and memory that is kept (`GLIBC_TUNABLES=glibc.malloc.hugetlb=1:
glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=17179869184`, in one word) are fastest.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from training.body import Shape, cast, compiled, hidden_states, rotations
from training.config import CURRICULUM, SIZES, build, scaled
from training.document import FIRST_TURN_FACTOR, FIRST_WEIGHT
from training.feed import Workers, batches, load_mixture
from training.head import HeadLoss
from training.mixture import LAST_LENGTHS, Batch, Mixture
from training.muon import BatchedMuon
from training.tokenizer import PAD

OUT = Path(__file__).resolve().parent / "out"
TEXT_SHARE, TEXT_WEIGHT = 0.08, 0.3
"""Plain text is learned a little, so that the model stays a language model; answers are what it is for."""
LONGEST_STEP = 20.0
"""Seconds a step may count for: a process that was stopped for a while has not trained meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a run is made of; the same settings and steps give the same batches."""

    config: str = "small"
    minutes: float = 60.0
    decay_minutes: float = 30.0
    seed: int = 1
    device: str = "cpu"
    muon_lr: float = 0.01
    adam_lr: float = 2e-3
    warmup_steps: int = 50
    scale: int = 1
    compile: bool = False
    save_every: float = 180.0
    keep_every: float = 1200.0
    log_every: int = 20


@dataclass(kw_only=True)
class Progress:
    """How far a run has come; saved and restored with the weights."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    stage: int = 0
    steps_in_stage: int = 0
    first: float = 0.0
    rest: float = 0.0
    loss: float = 0.0
    kept: int = 0
    kinds: dict[str, list[float]] = field(default_factory=dict)
    """Of every kind of question the running share of first tokens, and of whole answers, that are right."""


class Trainer:
    """Model, optimisers and progress of one run."""

    def __init__(self, settings: Settings, run: Path, init: Path | None = None) -> None:
        self.settings, self.run, self.stopped = settings, run, False
        torch.manual_seed(settings.seed)
        resumed = (run / "state.pt").is_file()
        start = run / "model" if resumed else init  # its weights are replaced; a run needs what it began with no more
        if start is not None:
            self.model = LlamaForCausalLM.from_pretrained(start, dtype=torch.float32, local_files_only=True)
        else:
            self.model = build(SIZES[settings.config])
        torch.nn.Module.to(self.model, settings.device)
        self.model.train()
        self.progress = Progress(stage=len(CURRICULUM) - 1 if init is not None else 0)
        named = list(self.model.named_parameters())
        matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name and "lm_head" not in name]
        chosen = {id(p) for p in matrices}
        self.optimizers: dict[float, torch.optim.Optimizer] = {
            settings.muon_lr: BatchedMuon(
                matrices, lr=settings.muon_lr, momentum=0.95, weight_decay=0.01, adjust_lr_fn="original"
            ),
            settings.adam_lr: torch.optim.AdamW(
                [p for _, p in named if id(p) not in chosen],
                lr=settings.adam_lr,
                betas=(0.9, 0.98),
                weight_decay=0.0,
            ),
        }
        self.body = compiled() if settings.compile else hidden_states
        self.shape = Shape.of(self.model)
        if resumed:
            self._restore()

    def _restore(self) -> None:
        state = torch.load(self.run / "state.pt", map_location=self.settings.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers.values(), state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        known = {each.name for each in fields(Progress)}
        self.progress = Progress(**{name: value for name, value in state["progress"].items() if name in known})

    def save(self) -> None:
        """Write everything beside the old files, then swap: a stopped machine never leaves half a checkpoint.

        Now and then the model is also kept under `snapshots/`, for the curve of accuracy against tokens.
        """
        self.run.mkdir(parents=True, exist_ok=True)
        due = int(self.progress.seconds // self.settings.keep_every)
        if due > self.progress.kept:
            self.progress.kept = due
            self.model.save_pretrained(self.run / "snapshots" / f"tokens-{self.progress.tokens:09d}")
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers.values()],
            "progress": asdict(self.progress),
        }
        torch.save(state, self.run / "state.new")
        os.replace(self.run / "state.new", self.run / "state.pt")
        self.model.save_pretrained(self.run / "model")

    @property
    def left(self) -> float:
        """The share of the falling rates' minutes that is left; above 1 before they fall."""
        minutes = self.settings.minutes
        return (minutes - self.progress.seconds / 60) / max(1e-9, min(self.settings.decay_minutes, minutes))

    @property
    def falling(self) -> bool:
        """Whether the last minutes have begun, in which rates fall and sequences are long."""
        return self.left < 1 and self.progress.stage == len(CURRICULUM) - 1

    def learning_rate_factor(self) -> float:
        """Warm up by steps, stay, then fall linearly to zero by the clock."""
        warm = min(1.0, (self.progress.step + 1) / self.settings.warmup_steps)
        return warm * max(0.0, min(1.0, self.left))

    def train_step(self, batch: Batch) -> None:
        """One batch: forward, weighted loss on the chosen positions only, clipped step."""
        settings, progress = self.settings, self.progress
        ids, weights = (torch.from_numpy(each).to(settings.device) for each in batch[:2])
        factor = self.learning_rate_factor()
        for rate, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        places = choose(ids, weights, settings.seed, progress.step)
        targets, target_weights = ids.flatten()[places + 1], weights.flatten()[places + 1]
        own = cast(self.model)
        hidden = self.body(own, ids, *rotations(ids.shape[1], self.shape, settings.device), self.shape)
        loss, right = HeadLoss.apply(
            hidden.flatten(0, 1)[places], self.model.lm_head.weight, targets, shares(target_weights), settings.compile
        )  # type: ignore[misc]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        right = right.cpu()
        self._note(loss, right, target_weights.cpu())
        self._note_kinds(right, places.cpu(), batch)
        progress.step += 1
        progress.steps_in_stage += 1
        progress.tokens += int((batch.ids != PAD).sum())

    def _note(self, loss: Tensor, right: Tensor, weights: Tensor) -> None:
        progress = self.progress
        is_first = (weights == FIRST_WEIGHT) | (weights == FIRST_WEIGHT * FIRST_TURN_FACTOR)
        is_rest = (weights > 0) & ~is_first
        keep = 0.98 if progress.steps_in_stage > 20 else 0.8
        if is_first.any():
            progress.first = keep * progress.first + (1 - keep) * right[is_first].float().mean().item()
        if is_rest.any():
            progress.rest = keep * progress.rest + (1 - keep) * right[is_rest].float().mean().item()
        progress.loss = keep * progress.loss + (1 - keep) * loss.item()

    def _note_kinds(self, right: Tensor, places: Tensor, batch: Batch) -> None:
        """Running accuracies by kind, weighing each answer alike."""
        owners = torch.from_numpy(batch.owners).flatten()[places + 1]
        answered = owners > 0
        count = len(batch.kinds)
        whole = torch.ones(count).scatter_reduce(0, owners[answered] - 1, right[answered].float(), "amin")
        is_first = answered & (torch.from_numpy(batch.weights).flatten()[places + 1] > FIRST_WEIGHT - 0.1)
        firsts, found = torch.zeros(count), torch.zeros(count)
        firsts = firsts.index_add(0, owners[is_first] - 1, torch.ones(int(is_first.sum())))
        found = found.index_add(0, owners[is_first] - 1, right[is_first].float())
        first_right = torch.where(firsts > 0, found / firsts, whole)
        for kind, first, exact in zip(batch.kinds, first_right.tolist(), whole.tolist(), strict=True):
            old = self.progress.kinds.setdefault(kind, [first, exact])
            old[0] += 0.005 * (first - old[0])
            old[1] += 0.005 * (exact - old[1])

    def log(self, length: int) -> None:
        """One line of `log.jsonl`."""
        progress = self.progress
        line = {
            "step": progress.step,
            "tokens": progress.tokens,
            "seconds": round(progress.seconds, 1),
            "stage": progress.stage,
            "length": length,
            "loss": round(progress.loss, 4),
            "first": round(progress.first, 4),
            "rest": round(progress.rest, 4),
            "kinds": {kind: [round(each, 3) for each in pair] for kind, pair in sorted(progress.kinds.items())},
        }
        self.run.mkdir(parents=True, exist_ok=True)
        with (self.run / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


def choose(ids: Tensor, weights: Tensor, seed: int, step: int) -> Tensor:
    """Flat positions of a batch whose next tokens are targets: all of the answers, and of the text a share that is
    drawn anew each step, the same on every resume.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    drawn = torch.rand(weights[:, 1:].shape, generator=generator).to(ids.device) < TEXT_SHARE
    chosen = (weights[:, 1:] > 0) | (drawn & (ids[:, 1:] != PAD))
    return torch.nn.functional.pad(chosen, (0, 1)).flatten().nonzero().flatten()


def shares(weights: Tensor) -> Tensor:
    """What each target is of the loss: a weighted mean, in which text has `TEXT_WEIGHT`."""
    scale = torch.where(weights > 0, weights, torch.full_like(weights, TEXT_WEIGHT))
    return scale / scale.sum()


def train(trainer: Trainer, mixture: Mixture, workers: Workers | None = None, steps: int | None = None) -> None:
    """Train until the clock of the settings runs out, or for `steps` more steps; saves at the end."""
    settings, progress = trainer.settings, trainer.progress
    last_save = time.monotonic()
    final_step = None if steps is None else progress.step + steps
    while not _over(trainer, final_step):
        falling = trainer.falling
        lengths = scaled(LAST_LENGTHS if falling else CURRICULUM[progress.stage].lengths, settings.scale)
        feed: Iterator[Batch] = (
            workers.batches(progress.step, settings.seed, lengths)
            if workers
            else batches(mixture, progress.step, settings.seed, lengths)
        )
        stage = progress.stage
        while progress.stage == stage and trainer.falling == falling and not _over(trainer, final_step):
            started = time.monotonic()
            batch = next(feed)
            trainer.train_step(batch)
            progress.seconds += min(LONGEST_STEP, time.monotonic() - started)
            if progress.step % settings.log_every == 0:
                trainer.log(batch[0].shape[1])
            if progress.first > CURRICULUM[stage].until and progress.steps_in_stage > 100:
                progress.stage, progress.steps_in_stage = stage + 1, 0
            if time.monotonic() - last_save > settings.save_every:
                trainer.save()
                last_save = time.monotonic()
        feed.close()  # type: ignore[attr-defined]
    trainer.save()


def _over(trainer: Trainer, final_step: int | None) -> bool:
    settings, progress = trainer.settings, trainer.progress
    if trainer.stopped:
        return True
    if final_step is not None and progress.step >= final_step:
        return True
    return progress.seconds >= 60 * settings.minutes


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=OUT / "run", help="where the run is kept, and resumed from")
    parser.add_argument("--config", choices=sorted(SIZES), default="small", help="size of a new model")
    parser.add_argument("--init", type=Path, help="weights to continue from; begins with the mixed lengths")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json")
    parser.add_argument("--minutes", type=float, default=60.0, help="training time in all, resumes included")
    parser.add_argument("--decay-minutes", type=float, default=30.0, help="of these, the last ones: rates fall to zero")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves torch's choice")
    parser.add_argument("--muon-lr", type=float, default=0.01, help="peak; 0.005 suits continuing")
    parser.add_argument("--adam-lr", type=float, default=2e-3, help="peak; 0.001 suits continuing")
    parser.add_argument("--scale", type=int, default=1, help="multiplies the sequences of a step (about 7k tokens)")
    parser.add_argument("--workers", type=int, default=0, help="processes that make batches; 0 is one thread")
    parser.add_argument("--compile", action="store_true", help="torch.compile the body, once per length")
    given = parser.parse_args(arguments)
    if not given.tokenizer.is_file():
        parser.error(f"there is no tokenizer {given.tokenizer}")
    if given.init and not given.init.is_dir() and not (given.run / "state.pt").is_file():
        parser.error(f"there is no folder {given.init} to begin with")
    return given


def main() -> None:
    """Command line; see the module's docstring."""
    given = parse()
    if given.threads:
        torch.set_num_threads(given.threads)
    settings = Settings(
        config=given.config,
        minutes=given.minutes,
        decay_minutes=given.decay_minutes,
        seed=given.seed,
        device=given.device,
        muon_lr=given.muon_lr,
        adam_lr=given.adam_lr,
        scale=given.scale,
        compile=given.compile,
    )
    trainer = Trainer(settings, given.run, given.init)
    signal.signal(signal.SIGTERM, lambda *_: setattr(trainer, "stopped", True))  # ends after this step, saved
    trainer.run.mkdir(parents=True, exist_ok=True)
    (trainer.run / "command.txt").write_text(f"python -m training.train {shlex.join(sys.argv[1:])}\n")
    workers = Workers(given.workers, given.tokenizer) if given.workers else None
    train(trainer, load_mixture(given.tokenizer), workers)


if __name__ == "__main__":
    main()
