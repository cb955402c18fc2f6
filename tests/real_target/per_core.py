"""Tensors with an address of their own on each core, on the real ttnn with hybrid allocators."""

from __future__ import annotations

import os
import sys

os.environ["TT_METAL_ALLOCATOR_MODE_HYBRID"] = "1"

import ttnn
from exactness import Script


def memory(first: int, last: int, per_core: bool) -> ttnn.MemoryConfig:
    """Height-sharded in L1: 8 KiB on each of the cores of a row."""
    cores = ttnn.CoreRange(ttnn.CoreCoord(first, 0), ttnn.CoreCoord(last, 0))
    spec = ttnn.ShardSpec(ttnn.CoreRangeSet({cores}), [64, 64], ttnn.ShardOrientation.ROW_MAJOR)
    config = ttnn.MemoryConfig(ttnn.TensorMemoryLayout.HEIGHT_SHARDED, ttnn.BufferType.L1, spec)
    config.experimental_set_per_core_allocation(per_core)
    return config


def empty(mesh: ttnn.MeshDevice, cores: int, config: ttnn.MemoryConfig) -> ttnn.Tensor:
    """A tensor on so many cores."""
    return ttnn.empty([64 * cores, 64], ttnn.bfloat16, ttnn.TILE_LAYOUT, mesh, config)


def main() -> None:
    """One tensor in lockstep, then two with an address per core, on 8 and on 2 cores."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    script = Script(channel, (1, 2))
    script.checkpoint("start")
    mesh = script.open()
    lockstep = empty(mesh, 8, memory(0, 7, False))
    script.checkpoint("lockstep")
    tensors = [empty(mesh, 8, memory(0, 7, True)), empty(mesh, 2, memory(2, 3, True))]
    script.checkpoint("per_core")
    tensors.clear()
    script.checkpoint("gone")
    ttnn.deallocate(lockstep)
    script.close(mesh)
    script.checkpoint("end")


if __name__ == "__main__":
    sys.exit(main())
