"""Attention over held entries: one kernel call per piece, parts merged by log-sum-exp."""

from farspan.attention.attend import Rows, attend
from farspan.attention.kernels import backend, partial_attention
from farspan.attention.merge import Merger
from farspan.attention.pattern import Pattern, Sight

__all__ = ["Merger", "Pattern", "Rows", "Sight", "attend", "backend", "partial_attention"]
