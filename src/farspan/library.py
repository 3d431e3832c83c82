"""The C++ kernels as a library, where they were built: found once, loaded by ctypes.

`native/farspan.h` says what crosses the boundary. The library chooses its instruction set at run time.
"""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path
from typing import Any

import torch

KINDS = {torch.float32: 32, torch.bfloat16: 17, torch.float16: 16}  # of dense numbers, as the library calls them
LARGEST = 512  # head size
VERSION = 5
LIBRARY = "_native"


@functools.cache
def library() -> tuple[Any, str]:
    """-> (the loaded library or None, why)."""
    given = os.environ.get("FARSPAN_LIBRARY")  # another build of it, such as one with a sanitizer
    built = [Path(given)] if given else sorted(Path(__file__).parent.glob(LIBRARY + "*.so"))
    if not built:
        return None, "the C++ kernels were not built: there was no compiler when farspan was installed"
    try:
        found = ctypes.CDLL(str(built[0]))
        version = found.fs_version()
    except (OSError, AttributeError) as error:
        return None, f"{built[0].name} cannot be loaded: {error}"
    if version != VERSION:
        return None, f"{built[0].name} is of version {version}, and {VERSION} is needed: install farspan again"
    found.fs_attend.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32]
    found.fs_attend_sight.argtypes = [*found.fs_attend.argtypes, ctypes.c_void_p, ctypes.c_int32]
    found.fs_pack.argtypes = found.fs_unpack.argtypes = [ctypes.c_void_p]
    found.fs_force.argtypes = [ctypes.c_char_p]
    found.fs_borrow.argtypes = [ctypes.c_void_p]
    found.fs_instruction_set.restype = found.fs_instruction_sets.restype = ctypes.c_char_p
    forced = os.environ.get("FARSPAN_INSTRUCTIONS")
    if forced and found.fs_force(forced.encode()):
        every = found.fs_instruction_sets().decode()
        return None, f"FARSPAN_INSTRUCTIONS={forced!r} is not to be had here; allowed: {every}"
    found.fs_borrow(team())
    return found, f"C++ kernels with {found.fs_instruction_set().decode()} instructions"


def team() -> ctypes.c_void_p | None:
    """What starts the threads that torch computes with, where its OpenMP runtime says how (GNU's, and those alike)."""
    if not torch.backends.openmp.is_available():
        return None
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p)
    except (OSError, AttributeError, TypeError):  # another runtime, or a system whose loader gives nothing away
        return None
