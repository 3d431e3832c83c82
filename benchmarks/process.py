"""What this process takes of the machine's memory, as Linux counts it."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path


def peak() -> int:
    """Bytes of the process's resident memory at most since `reset_peak`."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def pss(kind: str = "Pss") -> int:
    """Bytes of memory that are this process's own now: proportional set size, with what was freed given back.

    `kind` is a line of smaps_rollup; Pss_Anon leaves out what files stand behind. 0 where the system does not say.
    """
    _give_back()
    rollup = Path("/proc/self/smaps_rollup")
    lines = rollup.read_text().splitlines() if rollup.exists() else []
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{kind}:"))


def reset_peak() -> None:
    """Start anew, with what was freed given back to the system."""
    _give_back()
    Path("/proc/self/clear_refs").write_text("5")


def _give_back() -> None:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
