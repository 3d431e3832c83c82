"""The public contract test: `check_method` passes for every built-in method, and a plug-in's author runs it too.

It needs neither pytest nor downloads: models are tiny, random, and built on the spot.
"""

from farspan.testing.contract import FAMILIES, check_method
from farspan.testing.reads import allocated_bytes
from farspan.testing.tiny import KINDS, SCALED, WINDOW, tiny_model

__all__ = ["FAMILIES", "KINDS", "SCALED", "WINDOW", "allocated_bytes", "check_method", "tiny_model"]
