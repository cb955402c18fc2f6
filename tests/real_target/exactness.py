"""A scripted program on the real ttnn, for tests that compare ttmem with the truth.

It performs named phases. At each checkpoint it writes one JSON line with what tt-metal itself
says is allocated, and waits for a line on standard input (or its end) before it goes on:

    {"checkpoint": NAME,
     "still":   whether nothing is allocated or freed while the script waits,
     "views":   [{"mesh": ID, "chips": [ID, ...], "type": "DRAM" | "L1" | "L1_SMALL" | "TRACE",
                  "num_banks": N, "total_bytes_per_bank": N, "total_bytes_allocated_per_bank": N,
                  "total_bytes_free_per_bank": N, "largest_contiguous_bytes_free_per_bank": N,
                  "blocks": [[ADDRESS, SIZE], ...], "holes": [[ADDRESS, SIZE], ...]}, ...],
     "buffers": [{"mesh": ID, "address": N, "type": ..., "max_size_per_bank": N, "device_id": N,
                  "page_size": N, "pages": N}, ...]}

`blocks` are the allocated ones of the allocator's block table, `holes` the free ones; their addresses count from the
beginning of the bank, those of `buffers` do not. The pages are null but for L1 and L1_SMALL: of
others tt-metal does not tell them. While it is not still, there is no truth, and both lists are
empty. The first checkpoint is `start`, before any device is open; the last is `end`, after all are
closed. All other output goes to standard error.

Left out, since mock devices cannot do it: a captured trace with an op in it and sub-device
managers (both end the process), and SYSTEM_MEMORY buffers (they throw).
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import sys
import threading
from collections.abc import Callable
from typing import Any

import ttnn
from checkpoints import GRID, OPEN_OPTIONS, Script, cores, sharded, tensor


def interleaved(script: Script) -> None:
    """DRAM and L1, of all dtypes, in tiles and rows, odd and tiny."""
    mesh = script.open()
    script.checkpoint("interleaved/empty")
    kept = []
    for where in (ttnn.DRAM_MEMORY_CONFIG, ttnn.L1_MEMORY_CONFIG):
        for dtype in (ttnn.bfloat16, ttnn.float32, ttnn.uint32, ttnn.int32, ttnn.uint16, ttnn.uint8):
            kept.append(tensor(mesh, (1, 1, 64, 96), where, dtype))
            kept.append(tensor(mesh, (3, 5, 7), where, dtype, ttnn.ROW_MAJOR_LAYOUT))
            kept.append(tensor(mesh, (1, 1), where, dtype, ttnn.ROW_MAJOR_LAYOUT))
        for dtype in (ttnn.bfloat8_b, ttnn.bfloat4_b):
            kept.append(tensor(mesh, (1, 1, 33, 65), where, dtype))
    script.checkpoint("interleaved/all")
    del kept[::3]
    script.checkpoint("interleaved/holes")
    kept.append(tensor(mesh, (1, 1, 2048, 4096)))
    script.checkpoint("interleaved/large")
    kept.clear()
    script.checkpoint("interleaved/freed")
    script.close(mesh)


def shards(script: Script) -> None:
    """Height, width, block and ND shards in L1, and shards in DRAM."""
    mesh = script.open()
    kept = [
        tensor(mesh, (1, 1, 256, 64), sharded("HEIGHT", cores(8, 1), (32, 64))),
        tensor(mesh, (1, 1, 32, 512), sharded("WIDTH", cores(8, 1), (32, 64))),
        tensor(mesh, (1, 1, 128, 256), sharded("BLOCK", cores(4, 4), (32, 64))),
        tensor(mesh, (1, 1, 192, 64), sharded("HEIGHT", cores(3, 2), (32, 64)), ttnn.float32),
    ]
    script.checkpoint("shards/L1")
    banks = mesh.dram_grid_size()
    width = 64 * banks.x
    kept.append(tensor(mesh, (1, 1, 64, width), sharded("WIDTH", cores(banks.x, 1), (64, 64), "DRAM")))
    script.checkpoint("shards/DRAM")
    spec = ttnn.NdShardSpec(ttnn.Shape([1, 32, 64]), cores(4, 2))
    for where in (ttnn.BufferType.L1, ttnn.BufferType.DRAM):
        grid = spec if where == ttnn.BufferType.L1 else ttnn.NdShardSpec(ttnn.Shape([1, 32, 64]), cores(2, 1))
        kept.append(tensor(mesh, (3, 64, 128), ttnn.MemoryConfig(where, grid)))
    script.checkpoint("shards/ND")
    kept.clear()
    script.checkpoint("shards/freed")
    script.close(mesh)


def small_and_trace(script: Script) -> None:
    """L1_SMALL, which takes shards only, and the trace region."""
    mesh = script.open()
    small = tensor(mesh, (1, 1, 256, 32), sharded("HEIGHT", cores(8, 1), (32, 32), "L1_SMALL"))
    script.checkpoint("small_and_trace/small")
    config = ttnn.MemoryConfig(ttnn.TensorMemoryLayout.INTERLEAVED, ttnn.BufferType.TRACE)
    trace = [tensor(mesh, (1, 1, 64, 64 * count), config) for count in (1, 2, 5)]
    script.checkpoint("small_and_trace/both")
    del small, trace[1]
    script.checkpoint("small_and_trace/some")
    trace.clear()
    script.checkpoint("small_and_trace/freed")
    script.close(mesh)


def frees(script: Script) -> None:
    """By name, by another value, by the collector, and on demand; twice is no harm."""
    mesh = script.open()
    one, two, three = (tensor(mesh, (1, 1, 64, 64 * count)) for count in (1, 2, 3))
    del one
    script.checkpoint("frees/del")
    two = tensor(mesh, (1, 1, 128, 32), ttnn.L1_MEMORY_CONFIG)
    script.checkpoint("frees/rebind")
    circle: list[Any] = [tensor(mesh, (1, 1, 96, 96), ttnn.L1_MEMORY_CONFIG)]
    circle.append(circle)
    script.checkpoint("frees/circle")
    del circle
    gc.collect()
    script.checkpoint("frees/collected")
    ttnn.deallocate(three)
    ttnn.deallocate(three)
    script.checkpoint("frees/deallocate")
    del two, three
    script.checkpoint("frees/freed")
    script.close(mesh)


def operations(script: Script) -> None:
    """Ops, whose intermediates come and go."""
    mesh = script.open()
    left = tensor(mesh, (1, 1, 128, 256))
    right = tensor(mesh, (1, 1, 256, 512))
    for turn in ("first", "cached"):
        product = ttnn.matmul(left, right, memory_config=ttnn.L1_MEMORY_CONFIG, core_grid=GRID)
        script.checkpoint(f"operations/{turn}/matmul")
        total = ttnn.add(product, product)
        chances = ttnn.softmax(total, dim=-1)
        script.checkpoint(f"operations/{turn}/softmax")
        normal = ttnn.layer_norm(chances)
        rows = ttnn.to_layout(normal, ttnn.ROW_MAJOR_LAYOUT)
        script.checkpoint(f"operations/{turn}/to_layout")
        tall = ttnn.to_memory_config(product, sharded("HEIGHT", cores(4, 1), (32, 512)))
        wide = ttnn.reshard(tall, sharded("BLOCK", cores(4, 4), (32, 128)))
        script.checkpoint(f"operations/{turn}/reshard")
        del product, total, chances, normal, rows, tall, wide
        script.checkpoint(f"operations/{turn}/freed")
    del left, right
    script.close(mesh)


def threads(script: Script) -> None:
    """Several threads that allocate and free at once."""
    mesh = script.open()
    kept: list[list[Any]] = [[] for _ in range(4)]

    def work(number: int) -> None:
        choice = random.Random(number)
        for _ in range(100):
            where = choice.choice((ttnn.DRAM_MEMORY_CONFIG, ttnn.L1_MEMORY_CONFIG))
            kept[number].append(tensor(mesh, (1, 1, 32, 32 * choice.randrange(1, 9)), where))
            if len(kept[number]) > 8:
                kept[number].pop(choice.randrange(8))

    team = [threading.Thread(target=work, args=(number,)) for number in range(len(kept))]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    script.checkpoint("threads/done")
    kept.clear()
    script.checkpoint("threads/freed")
    script.close(mesh)


def out_of_memory(script: Script) -> None:
    """Requests that are refused change nothing."""
    mesh = script.open()
    kept = tensor(mesh, (1, 1, 64, 64), ttnn.L1_MEMORY_CONFIG)
    sizes = {"DRAM": (1, 64, 32768, 32768), "L1": (1, 1, 32768, 32768)}
    for name, shape in sizes.items():
        config = ttnn.DRAM_MEMORY_CONFIG if name == "DRAM" else ttnn.L1_MEMORY_CONFIG
        try:
            tensor(mesh, shape, config)
        except RuntimeError as error:
            if "Out of Memory" not in str(error):
                raise
            caught = str(error)
        else:
            raise SystemExit(f"{name} was to be full")
        script.checkpoint(f"out_of_memory/{name}", caught)
    del kept
    script.checkpoint("out_of_memory/freed")
    script.close(mesh)


def globals_(script: Script) -> None:
    """Global semaphores and global circular buffers."""
    mesh = script.open()
    semaphores = [ttnn.create_global_semaphore(mesh, cores(4, 2), 0) for _ in range(3)]
    script.checkpoint("globals/semaphores")
    sender = ttnn.CoreCoord(0, 0)
    receivers = ttnn.CoreRangeSet({ttnn.CoreRange(ttnn.CoreCoord(1, 1), ttnn.CoreCoord(2, 1))})
    buffer = ttnn.create_global_circular_buffer(mesh, [(sender, receivers)], 8192)
    script.checkpoint("globals/circular_buffer")
    del semaphores, buffer
    script.checkpoint("globals/freed")
    script.close(mesh)


def submeshes(script: Script) -> None:
    """Parts of a mesh with allocators of their own."""
    mesh = script.open()
    rows, columns = script.shape
    part = (1, columns) if rows > 1 else (1, max(1, columns // 2))
    parts = [script.know(part) for part in mesh.create_submeshes(ttnn.MeshShape(*part))]
    kept = [tensor(part, (1, 1, 64, 64 * count)) for count, part in enumerate(parts, 1)]
    script.checkpoint("submeshes/parts")
    kept.clear()
    script.checkpoint("submeshes/freed")
    for part_mesh in parts:
        script.close(part_mesh)
    script.close(mesh)


def deallocate_buffers(script: Script) -> None:
    """All of a device's buffers at once, while their tensors live on."""
    mesh = script.open()
    kept = [tensor(mesh, (1, 1, 64, 64), where) for where in (ttnn.DRAM_MEMORY_CONFIG, ttnn.L1_MEMORY_CONFIG)]
    script.checkpoint("deallocate_buffers/before")
    ttnn._ttnn.device.deallocate_buffers(mesh)
    script.checkpoint("deallocate_buffers/after")
    del kept
    script.checkpoint("deallocate_buffers/late")
    script.close(mesh)


def reopen(script: Script) -> None:
    """A mesh closed with live tensors, their late frees, and the same chips opened again."""
    mesh = script.open()
    kept = [tensor(mesh, (1, 1, 64, 64 * count)) for count in (1, 2)]
    script.checkpoint("reopen/before")
    script.close(mesh)
    script.checkpoint("reopen/closed")
    del kept, mesh
    script.checkpoint("reopen/late")
    mesh = script.open()
    again = tensor(mesh, (1, 1, 64, 64))
    script.checkpoint("reopen/again")
    del again
    script.close(mesh)


def single_devices(script: Script) -> None:
    """Chips opened one by one, without a mesh over them."""
    count = min(2, ttnn.get_num_devices())
    devices = ttnn.CreateDevices(list(range(count)), **OPEN_OPTIONS)
    for device in devices.values():
        script.know(device)
    kept = [tensor(device, (1, 1, 64, 64 * size)) for size, device in enumerate(devices.values(), 1)]
    script.checkpoint("single_devices/open")
    kept.clear()
    script.checkpoint("single_devices/freed")
    script.meshes.clear()
    ttnn.CloseDevices(devices)


PHASES: dict[str, Callable[[Script], None]] = {
    "interleaved": interleaved,
    "shards": shards,
    "small_and_trace": small_and_trace,
    "frees": frees,
    "operations": operations,
    "threads": threads,
    "out_of_memory": out_of_memory,
    "globals": globals_,
    "submeshes": submeshes,
    "deallocate_buffers": deallocate_buffers,
    "reopen": reopen,
    "single_devices": single_devices,
}


def mix(script: Script, seed: int, steps: int) -> None:
    """A random mix of allocations and frees, with a checkpoint every so often."""
    choice = random.Random(seed)
    mesh = script.open()
    kept: list[Any] = []
    configs = (
        lambda: ttnn.DRAM_MEMORY_CONFIG,
        lambda: ttnn.L1_MEMORY_CONFIG,
        lambda: sharded("HEIGHT", cores(4, 1), (32, 64)),
        lambda: sharded("HEIGHT", cores(2, 1), (64, 64), "L1_SMALL"),
    )
    for step in range(steps):
        if kept and (len(kept) > 40 or choice.random() < 0.45):
            victim = kept.pop(choice.randrange(len(kept)))
            if choice.random() < 0.5:
                ttnn.deallocate(victim)
            del victim
        else:
            config = choice.choice(configs)()
            odd = (1, 1, choice.randrange(1, 200), choice.randrange(1, 200))
            size = (1, 1, 128, 64) if config.is_sharded() else odd
            dtype = choice.choice((ttnn.bfloat16, ttnn.float32))
            rows = not config.is_sharded() and choice.random() < 0.5
            layout = ttnn.ROW_MAJOR_LAYOUT if rows else ttnn.TILE_LAYOUT
            try:
                kept.append(tensor(mesh, size, config, dtype, layout))
            except RuntimeError:
                # L1_SMALL is soon full; a refusal changes nothing.
                print(f"step {step}: refused", file=sys.stderr)
        if choice.random() < 0.1:
            script.checkpoint(f"random/{step}")
    kept.clear()
    script.checkpoint("random/freed")
    script.close(mesh)


def busy(script: Script, rounds: int) -> None:
    """Threads that allocate and free without a pause, but for a checkpoint after each round."""
    mesh = script.open()
    going, ended = threading.Event(), threading.Event()
    team = [Worker(mesh, number, going, ended) for number in range(4)]
    script.checkpoint("busy/open")
    for worker in team:
        worker.start()
    for turn in range(rounds):
        going.set()
        script.unsteady(f"busy/{turn}/running")
        going.clear()
        for worker in team:
            worker.wait_until_still()
        script.checkpoint(f"busy/{turn}/still")
    ended.set()
    going.set()
    for worker in team:
        worker.join()
    script.checkpoint("busy/freed")
    script.close(mesh)


class Worker(threading.Thread):
    """Allocates and frees while it may."""

    def __init__(self, mesh: Any, number: int, going: threading.Event, ended: threading.Event) -> None:
        super().__init__()
        self.mesh = mesh
        self.choice = random.Random(number)
        self.going, self.ended = going, ended
        self.stepping = threading.Lock()

    def run(self) -> None:
        """Steps until the end, and stands still in between."""
        kept: list[Any] = []
        while not self.ended.is_set():
            self.going.wait()
            with self.stepping:
                if self.going.is_set():
                    self.step(kept)

    def step(self, kept: list[Any]) -> None:
        """Allocates one tensor, and frees one if there are many."""
        where = self.choice.choice((ttnn.DRAM_MEMORY_CONFIG, ttnn.L1_MEMORY_CONFIG))
        kept.append(tensor(self.mesh, (1, 1, 32, 32 * self.choice.randrange(1, 9)), where))
        if len(kept) > 24:
            kept.pop(self.choice.randrange(len(kept)))

    def wait_until_still(self) -> None:
        """Waits until it stands still; `going` must have been cleared."""
        with self.stepping:
            pass


def arguments() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mesh", default="1x1", metavar="RxC", help="the mesh to open (default 1x1)")
    parser.add_argument("--phases", default=",".join(PHASES), metavar="A,B", help="only these, in this order")
    parser.add_argument("--list", action="store_true", help="list the phases")
    parser.add_argument("--random", type=int, metavar="SEED", help="a random mix instead of the phases")
    parser.add_argument("--busy", type=int, metavar="ROUNDS", help="so many rounds of load instead")
    parser.add_argument("--steps", type=int, default=500, metavar="N", help="of the random mix")
    return parser.parse_args()


def main() -> None:
    """Performs what was asked for."""
    typed = arguments()
    if typed.list:
        for name, phase in PHASES.items():
            print(f"{name:20} {phase.__doc__}")
        return
    rows, columns = (int(number) for number in typed.mesh.split("x"))
    # Libraries may write to standard output; the checkpoints get a descriptor of their own.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    script = Script(channel, (rows, columns))
    script.checkpoint("start")
    if typed.busy is not None:
        busy(script, typed.busy)
    elif typed.random is not None:
        mix(script, typed.random, typed.steps)
    else:
        for name in typed.phases.split(","):
            PHASES[name](script)
    script.checkpoint("end")


if __name__ == "__main__":
    main()
