"""Batches prepared beside the training step: one thread, or worker processes, always in the order of the steps."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

from tokenizers import Tokenizer

from farspan.reference.corpus import training_files
from training.mixture import Batch, Length, Mixture
from training.source import code_source, prose_source

AHEAD = 4

_mixture: Mixture | None = None


def load_mixture(tokenizer: Path, files: list[Path] | None = None) -> Mixture:
    """The training mixture over the standard library, or over `files` alone."""
    loaded = Tokenizer.from_file(str(tokenizer))
    chosen = files or training_files()
    return Mixture.training(loaded, code_source(chosen, loaded), prose_source(chosen, loaded))


def _start_worker(tokenizer: Path) -> None:
    global _mixture
    _mixture = load_mixture(tokenizer)


def _work(step: int, seed: int, lengths: tuple[Length, ...]) -> Batch:
    assert _mixture is not None
    return _mixture.batch(step, seed, lengths)


def batches(mixture: Mixture, first_step: int, seed: int, lengths: tuple[Length, ...]) -> Iterator[Batch]:
    """The batches from `first_step` on, made by one thread while the model computes. Close to stop the thread."""
    ready: queue.Queue[Batch | BaseException] = queue.Queue(AHEAD)
    stopped = threading.Event()

    def produce() -> None:
        step = first_step
        item: Batch | BaseException
        while not stopped.is_set():
            try:
                item = mixture.batch(step, seed, lengths)
            except BaseException as error:  # handed to the consumer, who can report it
                item = error
            while not stopped.is_set():
                try:
                    ready.put(item, timeout=0.2)
                    break
                except queue.Full:
                    continue
            step += 1

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()


class Workers:
    """Processes that make batches, for devices that are faster than one thread of Python."""

    def __init__(self, count: int, tokenizer: Path) -> None:
        self.count = count
        self.pool = ProcessPoolExecutor(count, initializer=_start_worker, initargs=(tokenizer,))

    def batches(self, first_step: int, seed: int, lengths: tuple[Length, ...]) -> Iterator[Batch]:
        waiting: list[Future[Batch]] = []
        step = first_step
        while True:
            while len(waiting) < AHEAD * self.count:
                waiting.append(self.pool.submit(_work, step, seed, lengths))
                step += 1
            yield waiting.pop(0).result()
