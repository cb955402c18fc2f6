"""reader.c with the Python package: `device N`, `device_now N`, `process N`, `check N`."""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Callable

import ttmem


def say(**answer: Any) -> None:
    """Writes one line of JSON."""
    print(json.dumps(answer), flush=True)


def main() -> None:
    """Asks as often as it is told."""
    monitor = ttmem.Monitor(int(sys.argv[1]), sys.argv[2])
    calls: dict[str, Callable[[], object]] = {
        "device": lambda: monitor.query_device(0, sync=False),
        "device_now": lambda: monitor.query_device(0),
        "process": monitor.process,
        "check": monitor.check,
    }
    say(ready=True)
    for line in sys.stdin:
        name, times = line.split()
        call, count = calls[name], int(times)
        start = time.perf_counter_ns()
        for _ in range(count):
            call()
        say(ns=time.perf_counter_ns() - start, events=count)


main()
