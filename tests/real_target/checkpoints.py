"""Checkpoints of a script on the real ttnn: what tt-metal itself says is allocated.

`exactness.py` says what a line of a checkpoint holds. Left out: what a script does in between.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import ttnn

TYPES = ("DRAM", "L1", "L1_SMALL", "TRACE")
# Left alone, a matmul may ask for eight rows of cores, and a harvested Wormhole has seven.
GRID = ttnn.CoreGrid(y=4, x=8)
OPEN_OPTIONS = {"l1_small_size": 32 * 1024, "trace_region_size": 4 << 20}


class Script:
    """The open meshes, and the checkpoints."""

    def __init__(self, channel: Any, shape: tuple[int, int]) -> None:
        self.channel = channel
        self.shape = shape
        self.meshes: dict[int, Any] = {}

    def open(self, shape: tuple[int, int] | None = None) -> Any:
        """Opens a mesh, known to later checkpoints."""
        return self.know(ttnn.open_mesh_device(ttnn.MeshShape(*(shape or self.shape)), **OPEN_OPTIONS))

    def know(self, mesh: Any) -> Any:
        """Makes a mesh known to later checkpoints."""
        self.meshes[mesh.id()] = mesh
        return mesh

    def close(self, mesh: Any) -> None:
        """Closes a mesh."""
        del self.meshes[mesh.id()]
        ttnn.close_mesh_device(mesh)

    def checkpoint(self, name: str, caught: str | None = None) -> None:
        """Writes what is allocated and the message of the exception caught last, and waits."""
        views_ = [view for mesh in self.meshes.values() for view in views(mesh)]
        buffers_ = [buffer for mesh in self.meshes.values() for buffer in buffers(mesh)]
        self.wait({"checkpoint": name, "still": True, "views": views_, "buffers": buffers_, "caught": caught})

    def unsteady(self, name: str) -> None:
        """Says that allocations go on, and waits."""
        self.wait({"checkpoint": name, "still": False, "views": [], "buffers": []})

    def wait(self, record: dict[str, Any]) -> None:
        """Writes a line, and waits for one."""
        self.channel.write(json.dumps(record) + "\n")
        self.channel.flush()
        sys.stdin.readline()


def views(mesh: Any) -> Iterator[dict[str, Any]]:
    """What the mesh's allocator says about each buffer type."""
    for name in TYPES:
        view = ttnn.get_memory_view(mesh, getattr(ttnn.BufferType, name))
        yield {
            "mesh": mesh.id(),
            "chips": list(mesh.get_device_ids()),
            "type": name,
            "num_banks": view.num_banks,
            "total_bytes_per_bank": view.total_bytes_per_bank,
            "total_bytes_allocated_per_bank": view.total_bytes_allocated_per_bank,
            "total_bytes_free_per_bank": view.total_bytes_free_per_bank,
            "largest_contiguous_bytes_free_per_bank": view.largest_contiguous_bytes_free_per_bank,
            "blocks": [
                [int(block["address"]), int(block["size"])]
                for block in view.block_table
                if block["allocated"] == "yes"
            ],
            "holes": [
                [int(block["address"]), int(block["size"])]
                for block in view.block_table
                if block["allocated"] != "yes"
            ],
        }


def buffers(mesh: Any) -> Iterator[dict[str, Any]]:
    """Every live buffer of the mesh."""
    pages: dict[tuple[str, int], list[int]] = {}
    for page in ttnn._ttnn.reports.get_buffer_pages([mesh]):
        pages.setdefault((page.buffer_type.name, page.address), []).append(page.page_size)
    for buffer in ttnn._ttnn.reports.get_buffers([mesh]):
        sizes = pages.get((buffer.buffer_type.name, buffer.address), [])
        yield {
            "mesh": mesh.id(),
            "address": buffer.address,
            "type": buffer.buffer_type.name,
            "max_size_per_bank": buffer.max_size_per_bank,
            "device_id": buffer.device_id,
            "page_size": sizes[0] if sizes else None,
            "pages": len(sizes) if sizes else None,
        }


def tensor(
    mesh: Any,
    shape: tuple[int, ...],
    memory: Any = None,
    dtype: Any = ttnn.bfloat16,
    layout: Any = ttnn.TILE_LAYOUT,
) -> Any:
    """A tensor that is only allocated, not written; in DRAM unless something else is asked for."""
    where = memory if memory is not None else ttnn.DRAM_MEMORY_CONFIG
    return ttnn.empty(shape, dtype=dtype, layout=layout, device=mesh, memory_config=where)


def cores(x: int, y: int) -> Any:
    """The cores from the corner to column x and row y, both counted from one."""
    return ttnn.CoreRangeSet({ttnn.CoreRange(ttnn.CoreCoord(0, 0), ttnn.CoreCoord(x - 1, y - 1))})


def sharded(kind: str, grid: Any, shard: tuple[int, int], where: str = "L1") -> Any:
    """A sharded memory configuration."""
    spec = ttnn.ShardSpec(grid, list(shard), ttnn.ShardOrientation.ROW_MAJOR)
    layout = getattr(ttnn.TensorMemoryLayout, f"{kind}_SHARDED")
    return ttnn.MemoryConfig(layout, getattr(ttnn.BufferType, where), spec)
