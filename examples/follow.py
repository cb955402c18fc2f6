"""Follows every allocation and free of a process, and knows its live buffers at any time.

    pip install ./python
    python examples/follow.py PID [COUNT]
"""

from __future__ import annotations

import sys

import ttmem


def main() -> int:
    """Prints each change, up to the end of the process or so many of them."""
    if len(sys.argv) < 2:
        print("usage: follow.py PID [COUNT]", file=sys.stderr)
        return 1
    count = int(sys.argv[2]) if len(sys.argv) > 2 else None
    live: dict[int, ttmem.Delta] = {}
    with ttmem.Monitor(int(sys.argv[1])) as monitor, monitor.subscribe("deltas") as deltas:
        print(f"following process {sys.argv[1]}", flush=True)
        for seen, delta in enumerate(deltas, start=1):
            if delta.change == "allocated":
                live[delta.buffer] = delta
            else:
                live.pop(delta.buffer, None)
            held = sum(buffer.size for buffer in live.values())
            print(
                f"{delta.sequence} {delta.change} {delta.type} {delta.size} bytes at 0x{delta.address:x}; "
                f"{len(live)} buffers with {held} bytes since the start",
                flush=True,
            )
            if seen == count:
                return 0
    print("the process has ended")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ttmem.TtmemError as error:
        sys.exit(f"follow: {error}")
