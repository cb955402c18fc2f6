"""Runs operations on the real ttnn and tells which circular buffers tt-metal gave their programs.

A graph capture around each operation says where each circular buffer was placed, on which chip and
cores. At each checkpoint the script writes one JSON line, and waits for a line on standard input
(or its end) before it goes on:

    {"checkpoint": NAME, "ran": [OPERATION, ...], "lowest": lowest address of a tensor in L1,
     "buffers": [{"chip": N, "address": N, "size": N, "alias": BOOL, "cores": [[X, Y, X, Y], ...]}, ...]}

`buffers` are those of all programs that still exist. The first checkpoint is `start`, before any
device is open; the last is `end`, after all are closed. Operations that mock devices cannot do are
left out, and not listed in `ran`. Dataflow buffers cause no event in a capture.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import ttnn

GRAPH = ttnn._ttnn.graph
CORES = re.compile(r"(\d+)-(\d+) - (\d+)-(\d+)")


class Run:
    """What has been run, and what its programs keep."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.ran: list[str] = []
        self.buffers: list[dict[str, Any]] = []
        self.lowest: int | None = None

    def checkpoint(self, name: str) -> None:
        """Writes what is there, and waits."""
        record = {"checkpoint": name, "ran": self.ran, "lowest": self.lowest, "buffers": self.buffers}
        self.channel.write(json.dumps(record) + "\n")
        self.channel.flush()
        sys.stdin.readline()

    def op(self, name: str, operation: Callable[[], Any]) -> Any:
        """Runs an operation; what its programs were given, unless it fails."""
        GRAPH.begin_graph_capture(GRAPH.RunMode.NORMAL)
        try:
            result = operation()
        except Exception as error:  # noqa: BLE001
            print(f"{name}: {str(error).splitlines()[0]}", file=sys.stderr)
            GRAPH.end_graph_capture()
            return None
        self.buffers += [placed(node["params"]) for node in GRAPH.end_graph_capture() if is_placing(node)]
        self.ran.append(name)
        return result


def is_placing(node: dict[str, Any]) -> bool:
    """Whether a node of the graph is a circular buffer that was placed."""
    return str(node["node_type"]) == "circular_buffer_allocate"


def placed(params: dict[str, Any]) -> dict[str, Any]:
    """Where a circular buffer was placed."""
    return {
        "chip": int(params["device_id"]),
        "address": int(params["address"]),
        "size": int(params["size"]),
        "alias": str(params["globally_allocated"]) not in ("0", "False", "false"),
        "cores": [[int(part) for part in found] for found in CORES.findall(params["core_range_set"])],
    }


def lowest_in_l1(mesh: Any) -> int:
    """The lowest address of a tensor in L1."""
    live = ttnn._ttnn.reports.get_buffers([mesh])
    return min(buffer.address for buffer in live if buffer.buffer_type == ttnn.BufferType.L1)


def operations(run: Run, mesh: Any) -> Any:
    """A mix of operations: with circular and with dataflow buffers, sharded ones among them.

    Returns the one tensor that stays in L1.
    """

    def tensor(rows: int, columns: int, memory: Any = ttnn.DRAM_MEMORY_CONFIG) -> Any:
        return ttnn.zeros(
            (1, 1, rows, columns), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=mesh, memory_config=memory
        )

    a, b, wide = tensor(64, 64), tensor(64, 64), tensor(256, 512)
    in_l1 = tensor(256, 512, ttnn.L1_MEMORY_CONFIG)
    sharded = ttnn.create_sharded_memory_config(
        (1, 1, 256, 64), core_grid=ttnn.CoreGrid(y=1, x=8), strategy=ttnn.ShardStrategy.HEIGHT
    )
    run.op("add", lambda: ttnn.add(a, b))
    run.op("add again", lambda: ttnn.add(a, b))
    run.op("multiply", lambda: ttnn.multiply(wide, in_l1))
    run.op("softmax", lambda: ttnn.softmax(wide, dim=-1))
    run.op("matmul", lambda: ttnn.matmul(a, b, core_grid=ttnn.CoreGrid(y=4, x=4)))
    run.op("layer_norm", lambda: ttnn.layer_norm(wide))
    run.op("transpose", lambda: ttnn.transpose(wide, -2, -1))
    run.op("concat", lambda: ttnn.concat([a, b], dim=3))
    run.op("sum", lambda: ttnn.sum(wide, dim=-1))
    run.op("typecast", lambda: ttnn.typecast(wide, ttnn.float32))
    run.op("untilize", lambda: ttnn.to_layout(wide, ttnn.ROW_MAJOR_LAYOUT))
    over = run.op("shard", lambda: ttnn.to_memory_config(tensor(256, 64), sharded))
    if over is not None:
        run.op("sharded add", lambda: ttnn.add(over, over, memory_config=sharded))
        run.op("sharded relu", lambda: ttnn.relu(over))
    return in_l1


def main() -> None:
    """Runs all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mesh", default="1x2", help="rows x columns of chips")
    rows, columns = (int(part) for part in parser.parse_args().mesh.split("x"))
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    run = Run(channel)
    run.checkpoint("start")
    mesh = ttnn.open_mesh_device(ttnn.MeshShape(rows, columns))
    in_l1 = operations(run, mesh)
    run.lowest = lowest_in_l1(mesh)
    run.checkpoint("ran")
    del in_l1
    mesh.disable_and_clear_program_cache()
    run.buffers = []
    run.checkpoint("cleared")
    ttnn.close_mesh_device(mesh)
    run.checkpoint("end")


main()
