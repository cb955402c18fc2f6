"""Tensors with an address of their own on each core, on the real ttnn with hybrid allocators.

Of what every script says (see exactness.py) the checkpoints leave out the buffers, and add

    "per_core": [[{"x,y": ADDRESS, ...} of each chip], ...]

one entry per such tensor, in the order in which they were made: the address on each core, as
tt-metal tells it.
"""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ["TT_METAL_ALLOCATOR_MODE_HYBRID"] = "1"

import ttnn
from checkpoints import Script, views

CHIPS = 2


def memory(first: int, last: int, shard: tuple[int, int], per_core: bool) -> ttnn.MemoryConfig:
    """Height-sharded in L1, on the cores of a row."""
    cores = ttnn.CoreRange(ttnn.CoreCoord(first, 0), ttnn.CoreCoord(last, 0))
    spec = ttnn.ShardSpec(ttnn.CoreRangeSet({cores}), list(shard), ttnn.ShardOrientation.ROW_MAJOR)
    config = ttnn.MemoryConfig(ttnn.TensorMemoryLayout.HEIGHT_SHARDED, ttnn.BufferType.L1, spec)
    config.experimental_set_per_core_allocation(per_core)
    return config


def tiles(mesh: ttnn.MeshDevice, first: int, last: int, per_core: bool = True) -> ttnn.Tensor:
    """8 KiB on each of these cores."""
    config = memory(first, last, (64, 64), per_core)
    return ttnn.empty([64 * (last - first + 1), 64], ttnn.bfloat16, ttnn.TILE_LAYOUT, mesh, config)


def rows(mesh: ttnn.MeshDevice, first: int, last: int, dtype: Any, width: int) -> ttnn.Tensor:
    """Three rows on each of these cores: pages that are smaller than what they are aligned to."""
    config = memory(first, last, (3, width), True)
    return ttnn.empty([3 * (last - first + 1), width], dtype, ttnn.ROW_MAJOR_LAYOUT, mesh, config)


class Tensors:
    """The tensors, and where tt-metal says that they are."""

    def __init__(self, script: Script, mesh: ttnn.MeshDevice) -> None:
        self.script = script
        self.grid = mesh.compute_with_storage_grid_size()
        self.kept: list[ttnn.Tensor] = []

    def checkpoint(self, name: str) -> None:
        """Waits, with the addresses of all."""
        of_all = [[self.addresses(kept, chip) for chip in range(CHIPS)] for kept in self.kept]
        views_ = [view for mesh in self.script.meshes.values() for view in views(mesh)]
        self.script.wait({"checkpoint": name, "still": True, "views": views_, "per_core": of_all})

    def addresses(self, kept: ttnn.Tensor, chip: int) -> dict[str, int]:
        """The address on each core that has one: tt-metal throws for the others."""
        found = {}
        for x in range(self.grid.x):
            for y in range(self.grid.y):
                place = (ttnn.MeshCoordinate(0, chip), ttnn.CoreCoord(x, y))
                try:
                    found[f"{x},{y}"] = kept.experimental_per_core_buffer_address(*place)
                except RuntimeError:
                    pass
        return found


def main() -> None:
    """One tensor in lockstep, then such with an address per core, which come and go."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    script = Script(channel, (1, CHIPS))
    script.checkpoint("start")
    mesh = script.open()
    tensors = Tensors(script, mesh)
    lockstep = [tiles(mesh, 0, 7, False)]
    tensors.checkpoint("lockstep")
    tensors.kept += [tiles(mesh, 0, 7), tiles(mesh, 2, 3), tiles(mesh, 2, 3)]
    tensors.checkpoint("per_core")
    tensors.kept += [tiles(mesh, 0, 7), tiles(mesh, 5, 5)]
    tensors.checkpoint("on different addresses")
    for dtype, width in ((ttnn.uint8, 24), (ttnn.uint16, 24), (ttnn.uint32, 8)):
        tensors.kept += [rows(mesh, 0, 1, dtype, width), rows(mesh, 0, 1, dtype, width)]
    tensors.checkpoint("small pages")
    lockstep.append(tiles(mesh, 0, 7, False))
    del tensors.kept[1::3]
    tensors.checkpoint("some gone")
    tensors.kept.clear()
    tensors.checkpoint("all gone")
    lockstep.pop()
    tensors.kept.append(tiles(mesh, 0, 7))
    tensors.checkpoint("again")
    tensors.kept.clear()
    lockstep.clear()
    script.close(mesh)
    script.checkpoint("end")


if __name__ == "__main__":
    sys.exit(main())
