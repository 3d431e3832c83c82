"""Entries held elsewhere than in the model's memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from farspan.cache.spill import HostShelf, Shelf, Spill
from farspan.errors import PlanError
from farspan.methods.store.base import Place


@dataclass(frozen=True, kw_only=True)
class Offload(Place):
    """Hold sealed entries on disk, or in host memory beside a GPU, and bring them one layer at a time.

    `to=disk` writes them to a file without a name in the folder `path` (default: where temporary files go), verifies
    them whenever they are read, and has the system fetch the next layer ahead. `to=host` needs a model on a device of
    its own. Whatever store the plan has packs them first: `snapkv:10% | int4 | offload`. In memory stay positions, what
    has not sealed yet (the chunk being read, what a budget still decides about, the newest 128 tokens) and the one
    extent in use. Where a plan fetches, only the pages that hold what is read are brought, unless the store packs in
    other ways than by groups. A context opened from a file is read from that file each time, extent by extent.
    """

    to: Literal["disk", "host"] = "disk"
    path: str | None = None

    def check(self) -> None:
        """A folder is for the disk."""
        if self.to == "host" and self.path is not None:
            raise PlanError(f"path={self.path} is a folder, and host memory has none; give to=disk or no path")

    def applies_on(self, device: torch.device) -> str | None:
        """Host memory is elsewhere only for a model on a device."""
        if self.to == "host" and device.type == "cpu":
            return "the model runs in host memory already; use offload(to=disk)"
        return None

    def open(self) -> Shelf:
        """-> a new file, or host memory."""
        return Spill(self.path) if self.to == "disk" else HostShelf()
