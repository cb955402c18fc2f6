"""The table: what it says, what is refused, what has grown old."""

from __future__ import annotations

import os
import random
import re
import time
from pathlib import Path

import pytest
import ttmem
from conftest import CHIPS_OFFSET, FILE_BYTES, HandMade
from ttmem import _layout as layout
from ttmem import _table

DOCUMENT = Path(__file__).parents[2] / "docs/shared-table.md"


def test_layout_is_the_documented_one() -> None:
    parts: dict[str, dict[str, int]] = {}
    ends: dict[str, int] = {}
    part = ""
    for line in DOCUMENT.read_text().splitlines():
        heading = re.fullmatch(r"## (?:The|A) (\w+)", line)
        row = re.match(r"\| (\d+) \| (\d+) \| `(\w+)` \|", line)
        if heading:
            part = heading.group(1)
        elif row:
            parts.setdefault(part, {})[row.group(3)] = int(row.group(1))
            ends[part] = int(row.group(1)) + int(row.group(2))
    assert parts == {"header": layout.HEADER, "chip": layout.CHIP, "pool": layout.POOL}
    assert ends == {
        "header": layout.HEADER_BYTES,
        "chip": layout.CHIP_LAST_BYTE,
        "pool": layout.POOL_LAST_BYTE,
    }


def test_figures_and_what_is_not_known(table: HandMade) -> None:
    table.write()
    monitor = ttmem.Monitor(directory=str(table.directory))
    assert monitor.devices() == [0, 3]
    chip = monitor.query_device(3, sync=False)
    assert (chip.chip, chip.exact, chip.dram.used, chip.dram.buffers) == (3, True, 16384, 2)
    assert chip.dram.peak_used is None
    assert chip.circular_core_bytes is None
    assert (chip.headroom_state, chip.headroom_bytes) == ("clash", -512)
    assert (chip.circular_programs, chip.circular_buffers) == (2, 9)
    other = monitor.query_device(0, sync=False)
    assert (other.headroom_state, other.headroom_bytes) == (None, None)
    assert chip.dram.present and not chip.l1.present
    assert monitor.query_device(0, sync=False).dram.used == 4096
    process = monitor.process()
    assert (process.state, process.failures, process.inexact_because) == ("running", None, "")
    with pytest.raises(ttmem.NoDevice, match=r"has not used chip 1 \(used: 0, 3\)"):
        monitor.query_device(1, sync=False)


def test_nobody_watches(tmp_path: Path) -> None:
    with pytest.raises(ttmem.NotWatched, match="sudo ttmem attach --headless --pid") as caught:
        ttmem.Monitor(directory=str(tmp_path))
    assert str(tmp_path) in str(caught.value)


def test_the_directory_of_the_environment(table: HandMade, monkeypatch: pytest.MonkeyPatch) -> None:
    table.write()
    monkeypatch.setenv("TTMEM_TABLE_DIR", str(table.directory))
    assert ttmem.Monitor().devices() == [0, 3]


def test_found_in_a_container(tmp_path: Path) -> None:
    outside = HandMade(tmp_path, pid=4_000_001)
    outside.header("NAMESPACE_PID", os.getpid())
    outside.write()
    # Another process that has this number outside.
    other = HandMade(tmp_path)
    other.header("START_TICKS", 1)
    other.header("CHIPS", 0)
    other.write()
    assert ttmem.Monitor(directory=str(tmp_path)).devices() == [0, 3]
    outside.header("START_TICKS", 2)
    outside.write()
    with pytest.raises(ttmem.NotWatched):
        ttmem.Monitor(directory=str(tmp_path))


def now() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def test_old_numbers_are_refused(table: HandMade) -> None:
    table.header("HEARTBEAT_NS", now() - 60 * 10**9)
    table.write()
    monitor = ttmem.Monitor(directory=str(table.directory))
    with pytest.raises(ttmem.Stale, match=r"process 4711\) was killed or is stopped, .* for 60 s; start it again"):
        monitor.query_device(0, sync=False)
    table.header("HEARTBEAT_NS", now() + 3600 * 10**9)
    table.write()
    with pytest.raises(ttmem.Stale):
        monitor.query_device(0, sync=False)


@pytest.mark.parametrize(("state", "told"), [(2, "has ended"), (3, "runs another program"), (4, "not watched any more")])
def test_the_end_is_told(table: HandMade, state: int, told: str) -> None:
    table.header("STATE", state)
    table.write()
    monitor = ttmem.Monitor(directory=str(table.directory))
    with pytest.raises(ttmem.Ended, match=told):
        monitor.query_device(0, sync=False)
    assert monitor.process().state == layout.STATES[state]


def test_a_newer_ttmem_is_found(table: HandMade) -> None:
    table.write()
    monitor = ttmem.Monitor(directory=str(table.directory))
    table.header("STATE", 4)
    table.path.write_bytes(table.bytes)
    newer = HandMade(table.directory)
    newer.header("CHIPS", 1)
    table.path.unlink()
    newer.write()
    assert monitor.devices() == [3]


def test_a_write_that_was_not_finished(table: HandMade, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_table, "PATIENCE", 0.01)
    table.word(CHIPS_OFFSET, 5)
    table.write()
    with pytest.raises(ttmem.Stale, match="left in the midst of a write"):
        ttmem.Monitor(directory=str(table.directory)).query_device(3, sync=False)


@pytest.mark.parametrize(("before", "after"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_exact_is_what_was_so_before_and_after(
    table: HandMade, monkeypatch: pytest.MonkeyPatch, before: int, after: int
) -> None:
    table.header("EXACT", before)
    table.write()
    monitor = ttmem.Monitor(directory=str(table.directory))
    read = _table.Table._consistent

    def changing(self: _table.Table, start: int, size: int, sequence: int) -> bytes:
        numbers = read(self, start, size, sequence)
        table.header("EXACT", after)
        table.write()
        return numbers

    monkeypatch.setattr(_table.Table, "_consistent", changing)
    assert monitor.query_device(3, sync=False).exact == (before == after == 1)
    assert monitor.process().exact == (after == 1)


@pytest.mark.parametrize(
    ("at", "value", "told"),
    [
        (0, 7, "does not begin with TTMEMTAB"),
        (8, 2, "its version is 2 and this package reads 1"),
        (16, 1 << 63, "should have"),
        (24, 8, "its parts do not fit"),
        (32, 8, "its parts do not fit"),
        (40, 1 << 63, "its parts do not fit"),
        (56, 4, "its parts do not fit"),
    ],
)
def test_a_wrong_header_is_refused(table: HandMade, at: int, value: int, told: str) -> None:
    table.word(at, value)
    table.write()
    with pytest.raises(ttmem.Broken, match=told):
        ttmem.Monitor(directory=str(table.directory))


@pytest.mark.parametrize("size", [0, 1, 1855, 1856, 4096, FILE_BYTES - 1])
def test_a_file_that_is_cut_short_is_refused(table: HandMade, size: int) -> None:
    table.write()
    os.truncate(table.path, size)
    with pytest.raises(ttmem.Broken, match="bytes"):
        ttmem.Monitor(directory=str(table.directory))


def test_cut_short_later_it_is_an_error(table: HandMade) -> None:
    table.write()
    monitor = ttmem.Monitor(directory=str(table.directory))
    os.truncate(table.path, 100)
    with pytest.raises(ttmem.Broken, match="cut short"):
        monitor.query_device(0, sync=False)


def test_any_bytes_are_read_or_refused(table: HandMade, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_table, "PATIENCE", 0.0)
    choose = random.Random(1)
    good = bytes(table.bytes)
    for _ in range(500):
        table.bytes = bytearray(good)
        for _ in range(choose.randrange(1, 20)):
            offset = choose.choice([8 * choose.randrange(28), 8 * choose.randrange(FILE_BYTES // 8)])
            table.word(offset, choose.choice([choose.getrandbits(64), choose.randrange(10_000)]))
        table.write()
        try:
            monitor = ttmem.Monitor(directory=str(table.directory))
            monitor.process()
            for chip in monitor.devices():
                monitor.query_device(chip, sync=False)
        except ttmem.TtmemError as error:
            assert len(str(error)) > 20


def test_a_link_and_a_file_of_others_are_refused(table: HandMade) -> None:
    table.write()
    moved = table.directory / "elsewhere"
    table.path.rename(moved)
    table.path.symlink_to(moved)
    with pytest.raises(ttmem.Broken, match="cannot open"):
        ttmem.Monitor(directory=str(table.directory))
    table.path.unlink()
    moved.rename(table.path)
    if os.geteuid() == 0:
        os.chown(table.path, 12345, -1)
        with pytest.raises(ttmem.Broken, match="belongs to user 12345, and"):
            ttmem.Monitor(directory=str(table.directory))
        os.chown(table.path, 65534, -1)
        with pytest.raises(ttmem.Broken, match="belongs to user 65534 .in a user namespace, as in a rootless container"):
            ttmem.Monitor(directory=str(table.directory))
