"""How much each held entry matters to somebody, as a tensor: computed blockwise, once, and shared."""

from farspan.signals.expected import expected_attention
from farspan.signals.keys import key_likeness, key_norms
from farspan.signals.lines import add_diagonals, attention_blocks, line_attention
from farspan.signals.observation import Observation, Rotations
from farspan.signals.probes import normalized_attention
from farspan.signals.window import chunk_attention, window_attention

__all__ = [
    "Observation",
    "Rotations",
    "add_diagonals",
    "attention_blocks",
    "chunk_attention",
    "expected_attention",
    "key_likeness",
    "key_norms",
    "line_attention",
    "normalized_attention",
    "window_attention",
]
