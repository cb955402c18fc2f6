"""Applies every delta of a process that held nothing at first; at its end, what was left of it.

`add_up.py PID DIRECTORY` says `begun`, and then a line of JSON: `[[type, address, size], …]`.
"""

from __future__ import annotations

import json
import sys

import ttmem

live: dict[int, ttmem.Delta] = {}
with ttmem.Monitor(int(sys.argv[1]), sys.argv[2]) as monitor, monitor.subscribe("deltas") as deltas:
    print("begun", flush=True)
    expected = deltas.sequence + 1
    for delta in deltas:
        assert delta.sequence == expected, f"{delta.sequence} instead of {expected}"
        expected += 1
        if delta.change == "allocated":
            assert delta.buffer not in live, f"allocated twice: {delta}"
            live[delta.buffer] = delta
        else:
            del live[delta.buffer]
print(json.dumps(sorted([delta.type, delta.address, delta.size] for delta in live.values())))
