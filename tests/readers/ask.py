"""ask.c with the Python reader. `--as=UID` makes it that user's, once all is imported."""

from __future__ import annotations

import os
import sys
from typing import Optional

import ttmem

KINDS = {
    ttmem.NotWatched: "not-watched",
    ttmem.Denied: "denied",
    ttmem.Broken: "broken",
    ttmem.Stale: "stale",
    ttmem.Ended: "ended",
    ttmem.NoDevice: "no-device",
}


def answer(monitor: Optional[ttmem.Monitor], words: list[str]) -> str:
    """What one line asks for."""
    if monitor is None:
        return "error nothing is open"
    if words[0] == "process":
        process = monitor.process()
        return f"state={process.state} exact={int(process.exact)} {process.command}"
    device = monitor.query_device(int(words[1]), sync=words[0] == "now")
    return f"used={device.dram.used} buffers={device.dram.buffers} exact={int(device.exact)}"


def main() -> None:
    """Answers line by line."""
    if sys.argv[1:] and sys.argv[1].startswith("--as="):
        user = int(sys.argv[1][5:])
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    monitor: Optional[ttmem.Monitor] = None
    for line in sys.stdin:
        words = line.split()
        try:
            if words[0] == "open":
                monitor = None
                monitor = ttmem.Monitor(int(words[1]), words[2])
                told = "ok"
            else:
                told = answer(monitor, words)
        except ttmem.TtmemError as error:
            told = f"error {KINDS.get(type(error), type(error).__name__)} {error}"
        print(told, flush=True)


main()
