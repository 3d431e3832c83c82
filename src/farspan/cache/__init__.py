"""What is held, as plain data: blocks, extents, the open tail, the cache of one sequence."""

from farspan.cache.block import BLOCKS, Block, DenseBlock, block_from_tensors, register_block
from farspan.cache.cachegen import CachegenBlock
from farspan.cache.extent import Extent, Piece
from farspan.cache.fp8 import Fp8Block
from farspan.cache.gather import entries_at
from farspan.cache.group import GroupBlock
from farspan.cache.index import Index
from farspan.cache.keyless import KeylessBlock
from farspan.cache.lowrank import LowRankBlock
from farspan.cache.mixed import MixedBlock
from farspan.cache.sequence import SEAL_EVERY, Events, LayerCache, SequenceCache
from farspan.cache.tail import Tail

__all__ = [
    "BLOCKS",
    "SEAL_EVERY",
    "Block",
    "CachegenBlock",
    "DenseBlock",
    "Events",
    "Extent",
    "Fp8Block",
    "GroupBlock",
    "Index",
    "KeylessBlock",
    "LayerCache",
    "LowRankBlock",
    "MixedBlock",
    "Piece",
    "SequenceCache",
    "Tail",
    "block_from_tensors",
    "entries_at",
    "register_block",
]
