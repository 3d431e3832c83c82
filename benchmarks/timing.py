"""How benchmarks measure: interleaved runs, medians, a floor beside each row, one JSON line at the end."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

import farspan
from farspan.attention import backend


@dataclass(frozen=True, kw_only=True)
class Row:
    """One thing measured, in seconds or bytes (`B`): ours, the peer's, and the least that the machine allows."""

    name: str
    size: int
    ours: float
    peer: float
    floor: float
    unit: str = "s"

    @property
    def ratio(self) -> float:
        """How many times faster, or smaller, than the peer."""
        return self.peer / self.ours

    @property
    def share(self) -> float:
        """Of the floor: 1 is as little as the machine allows."""
        return self.floor / self.ours


def interleaved(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each, run in turn so that whatever else the machine does meets all alike; one round is not
    counted.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode():
        for turn in range(repeats + 1):
            for name, run in runs.items():
                began = time.perf_counter()
                run()
                if turn:
                    times[name].append(time.perf_counter() - began)
    return {name: statistics.median(each) for name, each in times.items()}


def bandwidth(megabytes: int = 512) -> float:
    """Bytes per second that all threads together read from memory, at best of twenty."""
    data = torch.ones(megabytes * 2**20 // 4)
    best = float("inf")
    for _ in range(20):
        began = time.perf_counter()
        data.sum()
        best = min(best, time.perf_counter() - began)
    return data.nbytes / best


def rate(size: int = 2048) -> float:
    """FLOPs per second of a bfloat16 matrix product, at best of five."""
    a, b = (torch.randn(size, size).bfloat16() for _ in range(2))
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def said(value: float, unit: str) -> str:
    """A measured value as people read it."""
    if unit == "B":
        return f"{value / 2**20:,.1f} MiB"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.3g} ms"


def machine() -> dict[str, Any]:
    """What a result was measured on."""
    route = backend("cpu")
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "farspan": farspan.__version__,
        "attention": f"{route.name}: {route.why}",
    }


def finish(title: str, rows: list[Row], facts: Mapping[str, Any]) -> None:
    """Print the table, then everything as one line of JSON."""
    print(f"\n{'':28} {'size':>8} {'ratio':>7} {'ours':>12} {'peer':>12} {'floor':>12} {'of floor':>9}")
    for row in rows:
        figures = (f"{said(x, row.unit):>12}" for x in (row.ours, row.peer, row.floor))
        print(f"{row.name:28} {row.size:8} {row.ratio:7.2f} {' '.join(figures)} {row.share:9.0%}")
    table = [{**asdict(row), "ratio": row.ratio, "share_of_floor": row.share} for row in rows]
    print(json.dumps({"benchmark": title, **facts, "machine": machine(), "rows": table}))
