"""Buffers that lose their block on the real ttnn: bulk frees, late frees, captures, submeshes.

Checkpoints as in `exactness.py`, whose records these are. The set of `Buffer` objects that `buffers`
comes from has here also such that have lost their block; the views are the truth.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import ttnn
from checkpoints import Script, tensor

GRAPH = ttnn._ttnn.graph
SMALL = (1, 1, 64, 64)


def late_frees(script: Script) -> None:
    """Late frees whose addresses belong to others by then."""
    mesh = script.open()
    for name, memory in (("DRAM", ttnn.DRAM_MEMORY_CONFIG), ("L1", ttnn.L1_MEMORY_CONFIG)):
        old: list[Any] = [tensor(mesh, SMALL, memory) for _ in range(3)]
        ttnn._ttnn.device.deallocate_buffers(mesh)
        new: list[Any] = [tensor(mesh, SMALL, memory) for _ in range(4)]
        script.checkpoint(f"late_frees/{name}/new")
        ttnn.deallocate(old.pop())
        script.checkpoint(f"late_frees/{name}/first")
        old.clear()
        script.checkpoint(f"late_frees/{name}/all")
        again = [tensor(mesh, SMALL, memory) for _ in range(2)]
        script.checkpoint(f"late_frees/{name}/again")
        # Those have lost their block, and their addresses are taken again.
        new.clear()
        script.checkpoint(f"late_frees/{name}/in_turn")
        again.clear()
        script.checkpoint(f"late_frees/{name}/end")
    script.close(mesh)


def captures(script: Script) -> None:
    """A capture that dispatches nothing allocates nothing."""
    mesh = script.open()
    kept = tensor(mesh, SMALL)
    GRAPH.begin_graph_capture(GRAPH.RunMode.NO_DISPATCH)
    pretended = [tensor(mesh, SMALL) for _ in range(3)]
    script.checkpoint("captures/within")
    pretended.clear()
    GRAPH.end_graph_capture()
    script.checkpoint("captures/after")
    ttnn.deallocate(kept)
    script.close(mesh)


def submeshes(script: Script) -> None:
    """A submesh with an allocator of its own; bulk and late frees in it."""
    mesh = script.open()
    part = script.know(mesh.create_submeshes(ttnn.MeshShape(1, 1))[0])
    kept = tensor(mesh, SMALL)
    old = tensor(part, SMALL)
    ttnn._ttnn.device.deallocate_buffers(part)
    new = tensor(part, SMALL)
    script.checkpoint("submeshes/new")
    ttnn.deallocate(old)
    script.checkpoint("submeshes/late")
    ttnn.deallocate(new)
    ttnn.deallocate(kept)
    script.close(part)
    script.close(mesh)


def main() -> None:
    """Runs all phases."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    script = Script(channel, (1, 2))
    script.checkpoint("start")
    for phase in (late_frees, captures, submeshes):
        phase(script)
    script.checkpoint("end")


if __name__ == "__main__":
    sys.exit(main())
