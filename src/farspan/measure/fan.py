"""Many batches at once: in threads, where a server does the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from farspan.measure.execute import evaluate
from farspan.measure.outcome import Subject
from farspan.measure.record import Record
from farspan.measure.settings import Batch, Cell, Column

Written = Iterator[tuple[Batch, list[Record]]]


class Draw:
    """Batches in the order of cells, never more than may be under way.

    Where a cell may stop early (`one_by_one`), its next batch is drawn only when the last one is written: whether it is
    wanted depends on that.
    """

    def __init__(self, queues: Mapping[Cell, Iterator[Batch]], *, one_by_one: bool) -> None:
        self._queues, self._one_by_one = dict(queues), one_by_one
        self._busy: set[Cell] = set()

    def next(self) -> Batch | None:
        """Another batch, or None where none may be begun now."""
        for cell in list(self._queues):
            if self._one_by_one and cell in self._busy:
                continue
            batch = next(self._queues[cell], None)
            if batch is not None:
                self._busy.add(cell)
                return batch
            del self._queues[cell]
        return None

    def done(self, batch: Batch) -> None:
        """A batch is written."""
        self._busy.discard(batch.cell)


class Threads:
    """Evaluate `workers` batches at once in this process; for subjects that wait for others to compute."""

    def __init__(self, subject: Subject, seed: int, workers: int, *, one_by_one: bool) -> None:
        self.subject, self.seed, self.workers, self.one_by_one = subject, seed, workers, one_by_one

    def __call__(self, queues: Mapping[Cell, Iterator[Batch]], columns_of: Callable[[Batch], list[Column]]) -> Written:
        """See run.Fan."""
        draw, running = Draw(queues, one_by_one=self.one_by_one), dict[Future[list[list[Record]]], Batch]()
        pool = ThreadPoolExecutor(self.workers)
        try:
            while True:
                while len(running) < self.workers and (batch := draw.next()) is not None:
                    running[pool.submit(self._evaluated, batch, columns_of(batch))] = batch
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    batch = running.pop(future)
                    yield from ((batch, records) for records in future.result())
                    draw.done(batch)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _evaluated(self, batch: Batch, columns: list[Column]) -> list[list[Record]]:
        return list(evaluate(self.subject, batch, columns, self.seed))
