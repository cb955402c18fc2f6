"""Steps of a small layer whose programs are cached, for `cargo xtask bench`; steered as load.hpp says.

`tight 1 STEPS` answers with the time of all steps, and their number as `events`.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import ttnn

GRID = ttnn.CoreGrid(y=4, x=8)


def say(**answer: Any) -> None:
    """Writes one line of JSON."""
    print(json.dumps(answer), flush=True)


def main() -> None:
    """Opens the chips as one row, and does what it is told."""
    mesh = ttnn.open_mesh_device(ttnn.MeshShape(1, int(sys.argv[1])))

    def tensor(rows: int, columns: int) -> Any:
        return ttnn.zeros((1, 1, rows, columns), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=mesh)

    weights, activation = tensor(256, 256), tensor(64, 256)

    def step() -> None:
        product = ttnn.matmul(activation, weights, core_grid=GRID)
        total = ttnn.add(product, activation)
        weighed = ttnn.softmax(total, dim=-1)
        for temporary in (product, total, weighed):
            ttnn.deallocate(temporary)

    step()
    say(ready=True)
    for line in sys.stdin:
        command, *numbers = line.split()
        if command == "tight":
            count = int(numbers[1])
            start = time.perf_counter_ns()
            for _ in range(count):
                step()
            say(ns=time.perf_counter_ns() - start, events=count)
        elif command == "sites":
            # Which bytes have changed is not looked at here: ttmem's first line tells.
            say(probed=2, opcode=0, allocate=0, free=0)
        else:
            say(error=f"no command {command}")


main()
