"""Allocates on the real ttnn in many ways, and tells by which Python functions.

At the checkpoint `stacks` it writes one JSON line, and waits for a line on standard input before it
goes on:

    {"checkpoint": NAME, "made": [{"address": N, "stack": [[FILE, LINE, FUNCTION], ...]}, ...]}

The innermost function comes first, as with ttmem. There is such a line before any device is open,
`start`, and one at the end.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import ttnn
from checkpoints import tensor

SMALL = (1, 1, 64, 64)
DEPTH = 90

Stack = list[tuple[str, int, str]]


def here() -> Stack:
    """The functions that are being executed, but for this one."""
    frame: Any = sys._getframe(1)
    stack = []
    while frame is not None:
        code = frame.f_code
        stack.append((code.co_filename, frame.f_lineno, getattr(code, "co_qualname", code.co_name)))
        frame = frame.f_back
    return stack


class Run:
    """What has been made, and by whom."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.mesh: Any = None
        self.made: list[tuple[Any, Stack]] = []

    def make(self) -> None:
        """One buffer. Both are in one line, so that the line is the same."""
        self.made.append((tensor(self.mesh, SMALL), here()))

    def checkpoint(self, name: str) -> None:
        """Writes what has been made, and waits."""
        made = [{"address": made.buffer_address(), "stack": stack} for made, stack in self.made]
        self.channel.write(json.dumps({"checkpoint": name, "made": made}) + "\n")
        self.channel.flush()
        sys.stdin.readline()


def deep(run: Run, depth: int) -> None:
    """A function that calls itself."""
    if depth == 0:
        run.make()
    else:
        deep(run, depth - 1)


def yields(run: Run) -> Iterator[int]:
    """A generator, which has a frame while it is asked."""
    for number in range(2):
        run.make()
        yield number


class Größe:
    """A name that is not plain."""

    def __init__(self, run: Run) -> None:
        run.make()


def sorts(run: Run) -> None:
    """From Python through C to Python."""

    def key(number: int) -> int:
        run.make()
        return number

    sorted([2, 1], key=key)


def late(run: Run) -> None:
    """Code that is made at run time."""
    scope: dict[str, Callable[[Run], None]] = {}
    exec(compile("def made(run):\n\n\n    run.make()\n", "<made late>", "exec"), scope)
    scope["made"](run)


def in_a_thread(work: Callable[[], None]) -> None:
    """Does it in a thread of its own, beside others."""
    waits = [threading.Event() for _ in range(3)]
    others = [threading.Thread(target=wait.wait) for wait in waits]
    own = threading.Thread(target=work)
    for thread in (*others[:2], own, *others[2:]):
        thread.start()
    own.join()
    for wait, thread in zip(waits, others, strict=True):
        wait.set()
        thread.join()


def main() -> None:
    """Makes all kinds."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    run = Run(channel)
    run.checkpoint("start")
    run.mesh = ttnn.open_mesh_device(ttnn.MeshShape(1, 1))
    run.make()
    deep(run, 5)
    deep(run, DEPTH)
    list(yields(run))
    Größe(run)
    [run.make() for _ in range(2)]  # noqa: B018
    sorts(run)
    late(run)
    in_a_thread(run.make)
    in_a_thread(lambda: deep(run, 3))
    run.checkpoint("stacks")
    run.made.clear()
    ttnn.close_mesh_device(run.mesh)
    run.checkpoint("end")


if __name__ == "__main__":
    main()
