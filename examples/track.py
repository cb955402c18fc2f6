"""What a part of a program does with device memory.

    pip install ./python
    python examples/track.py          # it says how to start ttmem, and waits for that

With `sudo ttmem serve` running it needs no waiting.
"""

from __future__ import annotations

import os
import sys

import ttmem
import ttnn


def run_model(device: ttnn.MeshDevice) -> ttnn.Tensor:
    """Two sums of 2 MiB each; one of them stays."""
    ones = ttnn.ones((1024, 1024), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device)
    twos = ttnn.add(ones, ones)
    fours = ttnn.add(twos, twos)
    ttnn.deallocate(ones)
    ttnn.deallocate(twos)
    return fours


def wait_for_ttmem() -> None:
    """Lets a person start it."""
    try:
        ttmem.Monitor().close()
    except ttmem.NotWatched as error:
        print(f"{error}; then press Enter", file=sys.stderr, flush=True)
        sys.stdin.readline()


def main() -> None:
    """Measures the model, and shows what it left."""
    print(f"process {os.getpid()}", flush=True)
    device = ttnn.open_mesh_device(ttnn.MeshShape(1, 1))
    wait_for_ttmem()
    with ttmem.track(device=0) as m:
        kept = run_model(device)
    print(f"DRAM: grew by {ttmem.format_bytes(m.increase)} ({m.increase} bytes), peak {ttmem.format_bytes(m.peak)}")
    for kind, growth in m.by_type.items():
        print(f"  {kind}: {growth.allocations} allocations, {growth.frees} frees")
    for buffer in m.leaked:
        print(f"  still there: {buffer.type} {ttmem.format_bytes(buffer.size)} at 0x{buffer.address:x}")
    print("exact" if m.exact else f"not exact: {m.inexact_because}")
    ttnn.deallocate(kept)
    ttnn.close_mesh_device(device)


if __name__ == "__main__":
    main()
