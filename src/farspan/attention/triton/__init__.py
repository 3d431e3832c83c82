"""The GPU's kernels, written in Triton: attention of few or many query rows to everything held.

Triton is imported when the route is taken, not before. Tested in Triton's interpreter; untested on a GPU.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch

DEVICES = ("cpu", "cuda")
LEAST_CAPABILITY = (8, 0)  # bfloat16 in matrix products


def interpreted() -> bool:
    """Whether TRITON_INTERPRET asks for kernels to run as Python, as Triton itself understands it."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


def available(device: str) -> str | None:
    """None if the kernels serve a device type, else the reason."""
    if device not in DEVICES:
        return f"Triton has no kernels for {device}"
    if device == "cpu" and not interpreted():
        return "Triton's kernels are for GPUs; to test them here, TRITON_INTERPRET=1 interprets them, slowly"
    if find_spec("triton") is None:
        return "triton is not installed: pip install 'farspan[gpu]'"
    if device == "cuda" and torch.cuda.is_available() and torch.cuda.get_device_capability() < LEAST_CAPABILITY:
        major, minor = torch.cuda.get_device_capability()
        return f"the GPU's compute capability {major}.{minor} is below 8.0"
    return None
