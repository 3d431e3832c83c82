"""Batches spread over a Ray cluster: every worker has the model, this process alone writes."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

from farspan.errors import OptionError, UsageError
from farspan.measure.execute import evaluate
from farspan.measure.fan import Draw, Written
from farspan.measure.manifest import differences, environment
from farspan.measure.outcome import Subject
from farspan.measure.record import Record
from farspan.measure.settings import Batch, Cell, Column, Settings

LOCAL = "local"
CONNECT_SECONDS = 5.0
STORE_BYTES = 100 * 1024 * 1024  # of shared memory for a Ray of our own: records are all that passes through it


class Worker:
    """What runs in each process of the cluster."""

    def __init__(self, make: Callable[[], Subject], threads: int, seed: int) -> None:
        import torch

        torch.set_num_threads(threads)  # sums in another order could turn a close choice
        self.subject, self.seed = make(), seed

    def told(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """-> what the model is, and where it runs."""
        return self.subject.describe(), environment(self.subject)

    def evaluate(self, batch: Batch, columns: list[Column]) -> list[list[Record]]:
        """-> the records of each column."""
        return list(evaluate(self.subject, batch, columns, self.seed))


class RayFan:
    """Evaluate on the Ray cluster at `address`, or on a Ray of our own (`local`): `with RayFan(...) as fan`.

    `make` loads the model in each worker, `like` is what that must then be. A worker takes as many cores as this
    process has threads, or a GPU where the model needs one; there are as many as fit. Raises OptionError where ray is
    not installed or cannot be reached, UsageError where a worker has another model.
    """

    def __init__(
        self,
        address: str,
        make: Callable[[], Subject],
        settings: Settings,
        *,
        like: Mapping[str, Any],
        threads: int,
        gpu: bool = False,
    ) -> None:
        self.address, self.make, self.settings, self.like = address, make, settings, like
        self.threads, self.gpu = threads, gpu
        self.environments: list[dict[str, Any]] = []
        self._workers: list[Any] = []

    def __enter__(self) -> RayFan:
        self._ray = _imported()
        _check_listening(self.address)
        try:
            self._ray.init(**self._how(), logging_level="ERROR", log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise OptionError(
                f"no Ray cluster answers at {self.address!r}: {error}. Give its address, or local"
            ) from error
        try:
            self._start()
        except BaseException:
            self._ray.shutdown()
            raise
        return self

    def _how(self) -> dict[str, Any]:
        if self.address != LOCAL:
            return {"address": self.address}
        paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        return {
            "address": "local",
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
            "runtime_env": {"env_vars": paths},
        }

    def _start(self) -> None:
        there = self._ray.cluster_resources()
        count = int(there.get("GPU", 0)) if self.gpu else int(there.get("CPU", 0)) // self.threads
        if count < 1:
            raise UsageError(
                f"the Ray cluster has {there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs: too few"
            )
        kind = self._ray.remote(num_cpus=self.threads, num_gpus=int(self.gpu))(Worker)
        self._workers = [kind.remote(self.make, self.threads, self.settings.seed) for _ in range(count)]
        for described, where in self._ray.get([worker.told.remote() for worker in self._workers]):
            other = differences(dict(self.like), described, "")
            if other:
                raise UsageError(f"a worker of the Ray cluster has another model: {'; '.join(other)}")
            if where not in self.environments:
                self.environments.append(where)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            self._ray.kill(worker)
        self._ray.shutdown()

    def __call__(self, queues: Mapping[Cell, Iterator[Batch]], columns_of: Callable[[Batch], list[Column]]) -> Written:
        """See run.Fan."""
        draw = Draw(queues, one_by_one=self.settings.until is not None)
        idle, running = list(self._workers), dict[Any, tuple[Batch, Any]]()
        while True:
            while idle and (batch := draw.next()) is not None:
                worker = idle.pop()
                running[worker.evaluate.remote(batch, columns_of(batch))] = batch, worker
            if not running:
                return
            (done,), _ = self._ray.wait(list(running), num_returns=1)
            batch, worker = running.pop(done)
            idle.append(worker)
            yield from ((batch, records) for records in self._ray.get(done))
            draw.done(batch)


def _check_listening(address: str) -> None:
    """Raise OptionError where nobody listens at a host and port: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise OptionError(
            f"no Ray cluster answers at {address!r}: {error}. Give the address that `ray start` printed, or local"
        ) from error


def _imported() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    try:
        import ray
    except ImportError:
        raise OptionError("--ray needs the package ray: pip install 'farspan[ray]'") from None
    return ray
