"""Attention over held entries: one kernel call per piece, parts merged by log-sum-exp."""

from farspan.attention.attend import Led, Rows, attend, standing
from farspan.attention.kernels import backend, partial_attention
from farspan.attention.merge import Merger
from farspan.attention.pattern import Pattern, Sight
from farspan.attention.standing import Standing

__all__ = [
    "Led",
    "Merger",
    "Pattern",
    "Rows",
    "Sight",
    "Standing",
    "attend",
    "backend",
    "partial_attention",
    "standing",
]
