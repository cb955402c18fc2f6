"""A small endless model-like workload for `cargo xtask demo`.

Each step runs one layer on the first chips of the machine: weights lie in DRAM, activations in
L1, interleaved or sharded, and a cache in DRAM grows from step to step until a new sequence
starts. Now and then it asks for more L1 than there is, and goes on without. It says `ready` once the devices are open, and ends cleanly with its standard input, on
SIGTERM, on SIGINT, or after `--seconds`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import threading
import time
from typing import Any

import ttnn

TILE = 32
BATCH_ROWS = (32, 64, 128, 256)
# Left alone, a matmul may ask for eight rows of cores, and a harvested Wormhole has seven.
GRID = ttnn.CoreGrid(y=4, x=8)


def arguments() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", type=int, default=2, help="at most so many chips, in one row")
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between two steps")
    parser.add_argument("--seconds", type=float, default=None, help="end after so long")
    parser.add_argument("--greed", type=int, default=100, help="steps from one vain request to the next; 0: none")
    parser.add_argument("--seed", type=int, default=1, help="of the choices of sizes")
    return parser.parse_args()


def end_on_request() -> threading.Event:
    """An event that is set when the workload should end."""
    end = threading.Event()

    def wait_for_end_of_input() -> None:
        # Unbuffered: a buffered reader still waiting would abort the interpreter's end.
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        end.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    threading.Thread(target=wait_for_end_of_input, daemon=True).start()
    return end


class Model:
    """One layer's weights, its cache, and the steps on them."""

    def __init__(self, mesh: Any, seed: int) -> None:
        self.mesh = mesh
        self.random = random.Random(seed)
        self.hidden = 512
        # Each allocation has a line of its own: that is what a call stack shows.
        self.dram = {"layout": ttnn.TILE_LAYOUT, "device": mesh, "memory_config": ttnn.DRAM_MEMORY_CONFIG}
        self.l1 = {**self.dram, "memory_config": ttnn.L1_MEMORY_CONFIG}
        hidden, wide = self.hidden, 4 * self.hidden
        self.weights = {
            "query": ttnn.zeros((1, 1, hidden, hidden), dtype=ttnn.bfloat16, **self.dram),
            "output": ttnn.zeros((1, 1, hidden, hidden), dtype=ttnn.bfloat16, **self.dram),
            "up": ttnn.zeros((1, 1, hidden, wide), dtype=ttnn.bfloat8_b, **self.dram),
            "down": ttnn.zeros((1, 1, wide, hidden), dtype=ttnn.bfloat8_b, **self.dram),
        }
        self.cache: list[Any] = []
        self.length = self.random.randrange(40, 160)

    def sharded(self, rows: int) -> Any:
        """Activations of that many rows, spread by width over eight cores."""
        return ttnn.create_sharded_memory_config(
            (rows, self.hidden // 8),
            core_grid=ttnn.CoreGrid(y=1, x=8),
            strategy=ttnn.ShardStrategy.WIDTH,
            use_height_and_width_as_shard_shape=True,
        )

    def step(self) -> None:
        """Runs the layer once; what is not kept is freed, one way or the other."""
        rows = self.random.choice(BATCH_ROWS)
        hidden = ttnn.zeros((1, 1, rows, self.hidden), dtype=ttnn.bfloat16, **self.l1)
        hidden = self.attention(hidden)
        hidden = self.mixing(hidden, rows)
        ttnn.deallocate(hidden)
        self.remember()

    def attention(self, hidden: Any) -> Any:
        """Matmul, softmax, matmul and the residual, all in interleaved L1."""
        query = ttnn.matmul(hidden, self.weights["query"], memory_config=ttnn.L1_MEMORY_CONFIG, core_grid=GRID)
        scores = ttnn.softmax(query, dim=-1, memory_config=ttnn.L1_MEMORY_CONFIG)
        ttnn.deallocate(query)
        mixed = ttnn.matmul(scores, self.weights["output"], memory_config=ttnn.L1_MEMORY_CONFIG, core_grid=GRID)
        # `scores` goes with this function's frame: an implicit free.
        return ttnn.add(hidden, mixed, memory_config=ttnn.L1_MEMORY_CONFIG)

    def mixing(self, hidden: Any, rows: int) -> Any:
        """Up and down again by way of DRAM, and an addition in sharded L1."""
        wide = ttnn.matmul(hidden, self.weights["up"], memory_config=ttnn.DRAM_MEMORY_CONFIG, core_grid=GRID)
        narrow = ttnn.matmul(wide, self.weights["down"], memory_config=ttnn.L1_MEMORY_CONFIG, core_grid=GRID)
        ttnn.deallocate(wide)
        memory = self.sharded(rows)
        left = ttnn.to_memory_config(hidden, memory)
        right = ttnn.to_memory_config(narrow, memory)
        ttnn.deallocate(narrow)
        total = ttnn.add(left, right, memory_config=memory)
        return ttnn.to_memory_config(total, ttnn.L1_MEMORY_CONFIG)

    def ask_for_too_much(self) -> None:
        """Asks for more L1 than any chip has, in vain."""
        shape = ttnn.Shape((1, 1, 32 * self.random.randrange(512, 1024), 16 * self.hidden))
        with contextlib.suppress(RuntimeError):
            ttnn.empty(shape, ttnn.bfloat16, ttnn.TILE_LAYOUT, self.mesh, ttnn.L1_MEMORY_CONFIG)

    def remember(self) -> None:
        """Grows the cache; a full one is dropped and a new sequence begins."""
        if len(self.cache) >= self.length:
            self.cache.clear()
            self.length = self.random.randrange(40, 160)
        rows = TILE * self.random.randrange(1, 33)
        self.cache.append(ttnn.zeros((1, 1, rows, 2 * self.hidden), dtype=ttnn.bfloat16, **self.dram))


def main() -> None:
    """Opens the devices and steps until asked to end."""
    typed = arguments()
    end = end_on_request()
    chips = min(typed.chips, ttnn.get_num_devices())
    mesh = ttnn.open_mesh_device(ttnn.MeshShape(1, chips), l1_small_size=32 * 1024, trace_region_size=1 << 20)
    try:
        model = Model(mesh, typed.seed)
        print("ready", flush=True)
        last = time.monotonic() + typed.seconds if typed.seconds is not None else float("inf")
        steps = 0
        while not end.wait(typed.pause) and time.monotonic() < last:
            model.step()
            steps += 1
            if typed.greed and steps % typed.greed == 0:
                model.ask_for_too_much()
        del model
    finally:
        ttnn.close_mesh_device(mesh)


if __name__ == "__main__":
    main()
