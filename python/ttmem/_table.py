"""Reads the shared table of one process.

Nothing in it is trusted, and it is read by ``pread``: a file that is cut short is an error here,
and not a SIGBUS. Invariant: figures that belong together are only returned if no write came between.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import time
from pathlib import Path
from typing import Callable, Optional

from ._errors import Broken, Denied, Ended, NoDevice, NotWatched, Stale, TtmemError
from ._layout import (
    CHIP,
    CHIP_LAST_BYTE,
    HEADER,
    HEADER_BYTES,
    HEADROOM_STATES,
    MAGIC,
    MAX_FILE_BYTES,
    POOL,
    POOL_LAST_BYTE,
    STATES,
    TYPES,
    UNKNOWN,
    VERSION,
)
from ._types import Device, Pool, Process

#: How long a write may take, seconds: the writer may be put to sleep in the midst of it.
PATIENCE = 1.0
_RUNNING = 1
#: What stands in a user namespace for every user who has no number in it.
_OVERFLOW_UID = 65534
_OVERFLOW_MEANS = (
    " (in a user namespace, as in a rootless container: some user of the host, root or any other; "
    "have ttmem run as the user of the container, or read outside of it)"
)
_HEADER_WORDS = struct.Struct("<28Q")


def places(directory: Optional[str]) -> list[str]:
    """Where tables are looked for."""
    chosen = directory or os.environ.get("TTMEM_TABLE_DIR")
    if chosen:
        return [chosen]
    found = ["/run/ttmem"]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        found.append(os.path.join(runtime, "ttmem"))
    return found


def start_ticks(pid: int) -> Optional[int]:
    """When a process was started, clock ticks since boot; None if it is not to be seen."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The second field is a name in parentheses, and may hold any characters.
    rest = text[text.rindex(b")") + 2 :].split()
    return int(rest[19])


def how_to_start(pid: int) -> str:
    """What to do if nobody watches a process."""
    return f"start `sudo ttmem attach --headless --pid {pid}` in another shell, or `sudo ttmem serve`"


class Table:
    """An open table."""

    def __init__(self, path: str) -> None:
        #: The file.
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                raise NotWatched(f"{path} is not there") from None
            if error.errno in (errno.EACCES, errno.EPERM):
                raise Denied(
                    f"may not read {path}: that may root, the user of the process, and the members of ttmem's --group"
                ) from None
            raise Broken(f"cannot open {path}: {error.strerror}") from None
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Lets go of it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            self.close()

    def _check(self) -> None:
        found = os.fstat(self._fd)
        if not stat.S_ISREG(found.st_mode):
            raise self._broken("it is no file")
        if found.st_uid not in (0, os.geteuid()):
            user = f"{found.st_uid}{_OVERFLOW_MEANS if found.st_uid == _OVERFLOW_UID else ''}"
            raise self._broken(f"it belongs to user {user}, and only those of root and of the caller are read")
        if not HEADER_BYTES <= found.st_size <= MAX_FILE_BYTES:
            raise self._broken(f"it has {found.st_size} bytes")
        word = self._header_word
        if word("MAGIC") != MAGIC:
            raise self._broken("it does not begin with TTMEMTAB")
        version = word("VERSION")
        if version != VERSION:
            raise self._broken(
                f"its version is {version} and this package reads {VERSION}: "
                "install the package that comes with the ttmem that runs"
            )
        size = word("FILE_BYTES")
        if size > found.st_size:
            raise self._broken(f"it has {found.st_size} bytes and should have {size}")
        self._chips_offset, self._chip_bytes = word("CHIPS_OFFSET"), word("CHIP_BYTES")
        self._chip_slots = word("CHIP_SLOTS")
        self._pools_offset, self._pool_bytes = word("POOLS_OFFSET"), word("POOL_BYTES")
        strides = (self._chips_offset, self._chip_bytes, self._pools_offset, self._pool_bytes)
        if not (
            all(stride % 8 == 0 for stride in strides)
            and self._chips_offset >= HEADER_BYTES
            and self._pools_offset >= CHIP_LAST_BYTE
            and self._pool_bytes >= POOL_LAST_BYTE
            and 1 <= self._chip_slots <= 8192
            and self._pools_offset + len(TYPES) * self._pool_bytes <= self._chip_bytes
            and self._chips_offset + self._chip_slots * self._chip_bytes <= size
        ):
            raise self._broken("its parts do not fit into it")

    def _broken(self, why: str) -> Broken:
        return Broken(f"{self.path} is no table of ttmem: {why}")

    def _read(self, offset: int, size: int) -> bytes:
        if self._fd < 0:
            raise TtmemError(f"{self.path} was closed by close(): use a new Monitor")
        found = os.pread(self._fd, size, offset)
        if len(found) != size:
            raise self._broken("it was cut short")
        return found

    def _word(self, offset: int) -> int:
        return int.from_bytes(self._read(offset, 8), "little")

    def _header_word(self, name: str) -> int:
        return self._word(HEADER[name])

    def _consistent(self, start: int, size: int, sequence: int) -> bytes:
        """A part of the file, read between two equal even numbers of its sequence word."""
        deadline: Optional[float] = None
        while True:
            before = self._word(sequence)
            if before % 2 == 0:
                found = self._read(start, size)
                if self._word(sequence) == before:
                    return found
            now = time.monotonic()
            deadline = now + PATIENCE if deadline is None else deadline
            if now > deadline:
                agent = self._header_word("AGENT_PID")
                raise Stale(
                    f"{self.path} was left in the midst of a write: ttmem (process {agent}) "
                    "was killed or is stopped; start it again"
                )
            os.sched_yield()

    def is_in_place(self) -> bool:
        """Whether it is still the file at its path: a new ttmem puts one of its own there."""
        try:
            found = os.lstat(self.path)
        except OSError:
            return False
        return os.path.samestat(found, os.fstat(self._fd))

    def is_of(self, pid: int, started: Optional[int], field: str = "PID") -> bool:
        """Whether it is the table of that process, by its number in `field` and the time of its start."""
        return self._header_word(field) == pid and started in (None, self.start_ticks())

    def start_ticks(self) -> int:
        """When the process was started, clock ticks since boot."""
        return self._header_word("START_TICKS")

    def pid(self) -> int:
        """The process id as ttmem sees it."""
        return self._header_word("PID")

    def check_fresh(self) -> None:
        """Raises `Stale` or `Ended` if nobody writes the numbers."""
        words = _HEADER_WORDS.unpack(self._read(0, _HEADER_WORDS.size))

        def word(name: str) -> int:
            return int(words[HEADER[name] // 8])

        pid, agent, state = word("PID"), word("AGENT_PID"), word("STATE")
        if state > _RUNNING:
            what = {2: "has ended", 3: "runs another program"}
            told = what.get(state, f"is not watched any more: ttmem (process {agent}) has ended")
            raise Ended(f"process {pid} {told}")
        beat = word("HEARTBEAT_NS")
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        if not beat <= now <= beat + word("STALE_AFTER_NS"):
            seconds = max(0, now - beat) // 10**9
            raise Stale(
                f"the numbers of process {pid} are old: ttmem (process {agent}) was killed or is stopped, "
                f"and has not written for {seconds} s; start it again"
            )

    def process(self) -> Process:
        """What the header says, at one instant."""
        raw = self._consistent(0, HEADER_BYTES, HEADER["SEQUENCE"])

        def word(name: str) -> int:
            return int.from_bytes(raw[HEADER[name] : HEADER[name] + 8], "little")

        def text(name: str, size: int) -> str:
            return raw[HEADER[name] : HEADER[name] + size].split(b"\0", 1)[0].decode(errors="replace")

        return Process(
            pid=word("PID"),
            namespace_pid=_known(word("NAMESPACE_PID")),
            agent_pid=word("AGENT_PID"),
            attached_ns=word("ATTACHED_NS"),
            time_ns=word("TIME_NS"),
            state=STATES[min(word("STATE"), len(STATES) - 1)],
            exact=word("EXACT") == 1,
            inexact_because=text("INEXACT_BECAUSE", 512),
            lost=word("LOST_RING_FULL") + word("LOST_READ_FAULT"),
            anomalies=word("ANOMALIES"),
            failures=_known(word("FAILURES")),
            command=text("COMMAND", 512),
            library=text("LIBRARY", 512),
            build_id=text("BUILD_ID", 64),
        )

    def chips(self) -> list[int]:
        """The ids of the chips that the process has used, in the order of their places."""
        count = min(self._header_word("CHIPS"), self._chip_slots)
        return [_signed(self._word(self._block(place) + CHIP["CHIP"])) for place in range(count)]

    def _place(self, chip: int) -> Optional[int]:
        # Most often a chip is in the place of its number.
        used = min(self._header_word("CHIPS"), self._chip_slots)
        if 0 <= chip < used and self._word(self._block(chip) + CHIP["CHIP"]) == chip:
            return chip
        chips = self.chips()
        return chips.index(chip) if chip in chips else None

    def _block(self, place: int) -> int:
        return self._chips_offset + place * self._chip_bytes

    def device(self, chip: int) -> Device:
        """All numbers of a chip at one instant."""
        place = self._place(chip)
        if place is None:
            chips = self.chips()
            used = ", ".join(map(str, sorted(chips))) or "none yet"
            raise NoDevice(f"process {self.pid()} has not used chip {chip} (used: {used}): open the device first")
        block = self._block(place)
        # Before and after: what is read in between may be of any moment there.
        exact = self._header_word("EXACT") == 1
        raw = self._consistent(block, self._chip_bytes, block + CHIP["SEQUENCE"])
        words = struct.unpack(f"<{len(raw) // 8}Q", raw)

        def figure(name: str) -> Optional[int]:
            return _known(words[CHIP[name] // 8])

        def pool(number: int) -> Pool:
            start = self._pools_offset + number * self._pool_bytes
            return _pool(TYPES[number], lambda name: words[(start + POOL[name]) // 8])

        state = words[CHIP["HEADROOM_STATE"] // 8]
        headroom = HEADROOM_STATES[state] if state < len(HEADROOM_STATES) else None
        return Device(
            chip=chip,
            exact=exact and self._header_word("EXACT") == 1,
            pools={name: pool(number) for number, name in enumerate(TYPES)},
            circular_core_bytes=figure("CIRCULAR_CORE_BYTES"),
            circular_peak_core_bytes=figure("CIRCULAR_PEAK_CORE_BYTES"),
            core_capacity_bytes=figure("CORE_CAPACITY_BYTES"),
            headroom_state=headroom,
            headroom_bytes=None if headroom is None else _signed(words[CHIP["HEADROOM_BYTES"] // 8]),
            circular_programs=words[CHIP["CIRCULAR_PROGRAMS"] // 8],
            circular_buffers=words[CHIP["CIRCULAR_BUFFERS"] // 8],
        )


def _pool(name: str, word: Callable[[str], int]) -> Pool:
    return Pool(
        type=name,
        present=word("PRESENT") == 1,
        buffers=word("BUFFERS"),
        logical_bytes=word("LOGICAL_BYTES"),
        used=_known(word("USED_BYTES")),
        peak_used=_known(word("PEAK_USED_BYTES")),
        capacity=_known(word("CAPACITY_BYTES")),
        allocations=word("ALLOCATIONS"),
        frees=word("FREES"),
        pre_attach_frees=word("PRE_ATTACH_FREES"),
        bank_bytes=_known(word("BANK_BYTES")),
        banks=_known(word("BANKS")),
    )


def _known(word: int) -> Optional[int]:
    return None if word == UNKNOWN else word


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


def find(pid: int, started: Optional[int], directory: Optional[str]) -> Table:
    """Opens the table of a process in the first place that has one. In a container, where ttmem,
    outside, knows the process by another number, it is found by the number inside and its start."""
    refusal: Optional[TtmemError] = None
    looked = places(directory)
    for place in looked:
        try:
            table = Table(os.path.join(place, f"{pid}.table"))
            if table.is_of(pid, started):
                return table
            table.close()
        except NotWatched:
            pass
        except TtmemError as error:
            refusal = refusal or error
        inside = _find_inside(place, pid, started) if started is not None else None
        if inside is not None:
            return inside
        if refusal is not None:
            raise refusal
    raise NotWatched(f"no table of process {pid} in {' or '.join(looked)}: {how_to_start(pid)}")


def _find_inside(place: str, pid: int, started: Optional[int]) -> Optional[Table]:
    try:
        names = sorted(name for name in os.listdir(place) if name.endswith(".table"))
    except OSError:
        return None
    for name in names:
        try:
            table = Table(os.path.join(place, name))
        except TtmemError:
            continue
        if table.is_of(pid, started, "NAMESPACE_PID"):
            return table
        table.close()
    return None
