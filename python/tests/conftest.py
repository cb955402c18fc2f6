"""A table made by hand, and a server that answers from a script."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator, Optional, Union

import pytest
import ttmem
from ttmem import _layout as layout
from ttmem._table import start_ticks

pytest_plugins = ["pytester"]

CHIPS_OFFSET, CHIP_BYTES, CHIP_SLOTS, POOLS_OFFSET, POOL_BYTES = 4096, 768, 128, 128, 128
FILE_BYTES = CHIPS_OFFSET + CHIP_SLOTS * CHIP_BYTES


class HandMade:
    """A table's file, with a chip 3 and a chip 0."""

    def __init__(self, directory: Path, pid: Optional[int] = None) -> None:
        self.directory = directory
        self.pid = os.getpid() if pid is None else pid
        self.path = directory / f"{self.pid}.table"
        self.bytes = bytearray(FILE_BYTES)
        for name, value in {
            "MAGIC": layout.MAGIC,
            "VERSION": 1,
            "FILE_BYTES": FILE_BYTES,
            "CHIPS_OFFSET": CHIPS_OFFSET,
            "CHIP_BYTES": CHIP_BYTES,
            "CHIP_SLOTS": CHIP_SLOTS,
            "POOLS_OFFSET": POOLS_OFFSET,
            "POOL_BYTES": POOL_BYTES,
            "PID": self.pid,
            "START_TICKS": start_ticks(os.getpid()) or 0,
            "NAMESPACE_PID": layout.UNKNOWN,
            "AGENT_PID": 4711,
            "STALE_AFTER_NS": 5 * 10**9,
            "HEARTBEAT_NS": time.clock_gettime_ns(time.CLOCK_MONOTONIC),
            "STATE": 1,
            "EXACT": 1,
            "CHIPS": 2,
            "FAILURES": layout.UNKNOWN,
        }.items():
            self.header(name, value)
        for place, chip in enumerate((3, 0)):
            block = CHIPS_OFFSET + place * CHIP_BYTES
            self.word(block + layout.CHIP["CHIP"], chip)
            self.word(block + layout.CHIP["CIRCULAR_CORE_BYTES"], layout.UNKNOWN)
            # Chip 3 clashes; of chip 0 it is not known.
            for name, value in {"HEADROOM_STATE": chip, "HEADROOM_BYTES": (1 << 64) - 512}.items():
                self.word(block + layout.CHIP[name], value)
            for name, value in {"CIRCULAR_PROGRAMS": 2, "CIRCULAR_BUFFERS": 9}.items():
                self.word(block + layout.CHIP[name], value)
            dram = block + POOLS_OFFSET
            figures = {"BUFFERS": 2, "USED_BYTES": 4096 * (chip + 1), "CAPACITY_BYTES": 1 << 20, "PRESENT": 1}
            for name, value in figures.items():
                self.word(dram + layout.POOL[name], value)
            self.word(dram + layout.POOL["PEAK_USED_BYTES"], layout.UNKNOWN)

    def word(self, offset: int, value: int) -> None:
        self.bytes[offset : offset + 8] = struct.pack("<Q", value)

    def header(self, name: str, value: int) -> None:
        self.word(layout.HEADER[name], value)

    def write(self) -> Path:
        self.path.write_bytes(self.bytes)
        return self.path


@pytest.fixture
def table(tmp_path: Path) -> HandMade:
    return HandMade(tmp_path)


Answer = Union[None, dict[str, Any]]
Script = Callable[[dict[str, Any]], Union[Answer, list[Answer]]]


class FakeServer:
    """Answers each request by what `script` returns of it; None closes the connection, also in a list."""

    def __init__(self, path: Path, script: Script) -> None:
        self.requests: list[dict[str, Any]] = []
        self._script = script
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        # A client may go before it is answered.
        with contextlib.suppress(BrokenPipeError), client, client.makefile("rwb") as lines:
            for line in lines:
                request = json.loads(line)
                self.requests.append(request)
                answers = self._script(request)
                for answer in answers if isinstance(answers, list) else [answers]:
                    if answer is None:
                        return
                    lines.write(json.dumps(answer).encode() + b"\n")
                lines.flush()

    def close(self) -> None:
        self._listener.close()


GROWTH = {
    "type": "DRAM",
    "buffers": 1,
    "logical_bytes": 2048,
    "used_bytes": 4096,
    "peak_used_bytes": 12288,
    "peak_growth_bytes": 8192,
    "allocations": 3,
    "frees": 2,
}
BUFFER = {
    "unique_id": 7,
    "type": "DRAM",
    "address": 4096,
    "size": 2048,
    "page_size": 1024,
    "bank_bytes": None,
    "chips": [0],
    "mesh": 1,
    "tid": 5,
    "allocated_ns": 9,
    "pre_attach": False,
    "site": "ttnn::zeros",
    "stack": [
        {"function": "forward", "module": "/a/model.py", "offset": None, "line": 42},
        {"function": "main", "module": "/bin/model", "offset": 16, "line": None},
    ],
    "stack_cut": None,
    "frames_beyond_cut": 0,
    "python_unknown": None,
    "a_newer_key": 1,
}


def answers(request: dict[str, Any]) -> Union[dict[str, Any], list[dict[str, Any]]]:
    """What a ttmem would say."""
    if request.get("get") == "sync":
        return {"schema": "ttmem.sync/1", "time_ns": 1, "pid": 1}
    if request.get("get") == "buffers":
        return {"schema": "ttmem.buffers/1", "exact": True, "inexact_because": [], "buffers": [BUFFER]}
    if request.get("get") == "failures":
        return {"schema": "ttmem.failures/1", "count": 0, "unknown_because": None, "last": []}
    if "mark" in request:
        return {"schema": "ttmem.mark/1", "name": request["mark"], "previous": None}
    if "since" in request:
        since = {"marked_ns": 8, "exact": True, "inexact_because": [], "devices": [{"chip": 0, "pools": [GROWTH]}]}
        return {"schema": "ttmem.since/1", "name": request["since"], "since": since}
    if request.get("subscribe") == "deltas":
        delta = {**BUFFER, "sequence": 5, "time_ns": 1, "change": "allocated", "cause": "event", "buffer": 1}
        return [
            {"schema": "ttmem.subscribed/1", "sequence": 4},
            {"schema": "ttmem.deltas/1", "deltas": [delta, {**delta, "sequence": 6, "change": "freed"}]},
            {"schema": "ttmem.end/1", "state": "exited"},
        ]
    return {"schema": "ttmem.error/1", "error": {"code": "bad_request", "message": "no such request"}}


def answers_after_a_loss(request: dict[str, Any]) -> Union[dict[str, Any], list[dict[str, Any]]]:
    """What a ttmem would say that has lost records since the mark, and set the live buffers right again."""
    answer = answers(request)
    if "since" in request:
        assert isinstance(answer, dict)
        answer["since"].update(exact=False, inexact_because=["records lost: 2"])
    return answer


@pytest.fixture
def server(table: HandMade) -> Iterator[FakeServer]:
    table.write()
    server = FakeServer(table.directory / f"{table.pid}.sock", answers)
    yield server
    server.close()


@pytest.fixture
def monitor(table: HandMade, server: FakeServer) -> Iterator[ttmem.Monitor]:
    with ttmem.Monitor(directory=str(table.directory)) as monitor:
        yield monitor
