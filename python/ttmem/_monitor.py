"""Asks about one process: totals from the shared table, all else from the socket."""

from __future__ import annotations

import os
import threading
from typing import Any, Literal, Optional, Union, overload

from ._errors import Ended, Stale, TtmemError
from ._socket import Connection
from ._subscription import Subscription, deltas, snapshots
from ._table import Table, find, start_ticks
from ._types import Buffer, Delta, Device, Failure, Process, from_json


class Monitor:
    """What ttmem knows of a process, by default of this one.

    `pid` is as the caller sees it; in a container too. `directory` is where the tables are: by
    default ``$TTMEM_TABLE_DIR`` if it is set, else ``/run/ttmem``, then ``$XDG_RUNTIME_DIR/ttmem``.
    Raises `NotWatched` if no ttmem watches it. Any thread may use it.

    If ttmem was ended and started again, the new one is used.
    """

    def __init__(self, pid: Optional[int] = None, directory: Optional[str] = None) -> None:
        #: The process id, as the caller sees it.
        self.pid = os.getpid() if pid is None else pid
        self._directory = directory
        self._started = start_ticks(self.pid)
        self._lock = threading.RLock()
        self._connection: Optional[Connection] = None
        self._connected_by = 0
        self._table = find(self.pid, self._started, directory)
        if self._started is None:
            self._started = self._table.start_ticks()

    def close(self) -> None:
        """Lets go of the table and the connection."""
        with self._lock:
            self._hang_up()
            self._table.close()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # The table.

    def query_device(self, chip: int = 0, sync: bool = True) -> Device:
        """All numbers of a chip at one instant.

        With `sync` they hold every event from before the call; ttmem is asked for that,
        some 0.1 ms. Without, they are read from memory in some 25 µs, and may be some 5 ms behind,
        more where the processor is busy.
        """
        if sync:
            self.sync()
        with self._lock:
            return self._fresh_table().device(chip)

    def devices(self) -> list[int]:
        """The ids of the chips that the process has used."""
        with self._lock:
            return sorted(self._fresh_table().chips())

    def process(self) -> Process:
        """What ttmem says of the process and of its own numbers; also after the process has ended."""
        with self._lock:
            try:
                return self._fresh_table().process()
            except Ended:
                return self._table.process()

    def check(self) -> None:
        """Raises `Stale` or `Ended` if nobody writes the numbers any more."""
        with self._lock:
            self._fresh_table()

    def _fresh_table(self) -> Table:
        try:
            self._table.check_fresh()
        except (Stale, Ended):
            newer = self._newer_table()
            if newer is None:
                raise
            self._use(newer)
        return self._table

    def _use(self, newer: Table) -> None:
        self._hang_up()
        self._table.close()
        self._table = newer

    def _newer_table(self) -> Optional[Table]:
        try:
            newer = find(self.pid, self._started, self._directory)
            newer.check_fresh()
        except TtmemError:
            return None
        return newer

    # The socket.

    def connect(self) -> Connection:
        """A new connection to the socket, for requests as in docs/socket.md."""
        with self._lock:
            table = self._fresh_table()
            return Connection(os.path.dirname(table.path), table.pid())

    def ask(self, **request: Any) -> dict[str, Any]:
        """One request of docs/socket.md and its answer, as in ``ask(get="snapshot")``."""
        with self._lock:
            kept = self._take_connection()
            if kept is not None:
                try:
                    return self._ask_on(kept, request)
                except Ended:
                    pass
            return self._ask_on(self.connect(), request)

    def _take_connection(self) -> Optional[Connection]:
        """The one that was kept. Meanwhile there is none: a signal handler may ask, too."""
        connection, self._connection = self._connection, None
        # A connection belongs to the process that made it, and a fork has another's.
        if connection is not None and self._connected_by != os.getpid():
            connection.close()
            return None
        return connection

    def _ask_on(self, connection: Connection, request: dict[str, Any]) -> dict[str, Any]:
        """Asks, and keeps the connection if no answer is left to come on it."""
        try:
            return connection.ask(**request)
        finally:
            if not connection.closed:
                self._hang_up()
                self._connection, self._connected_by = connection, os.getpid()

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def sync(self) -> None:
        """Has ttmem bring the table up to date with every event from before this call."""
        with self._lock:
            self.ask(get="sync")
            if self._table.is_in_place():
                return
            # Whoever answered writes another table: the one that was read is of a ttmem that was killed.
            newer = self._newer_table()
            if newer is None:
                self._table.check_fresh()
                raise Ended(f"process {self.pid} is not watched any more: {self._table.path} is gone")
            self._use(newer)
            self.ask(get="sync")

    def snapshot(self, buffers: bool = False) -> dict[str, Any]:
        """The snapshot of docs/json.md (``ttmem.snapshot/1``); with every live buffer if asked for."""
        return self.ask(get="snapshot", buffers=True) if buffers else self.ask(get="snapshot")

    def buffers(
        self,
        *,
        type: Optional[str] = None,
        chip: Optional[int] = None,
        min_size: Optional[int] = None,
        max_size: Optional[int] = None,
        tid: Optional[int] = None,
        allocated_after_ns: Optional[int] = None,
        pre_attach: Optional[bool] = None,
        sort: Optional[str] = None,
        limit: Optional[int] = None,
    ) -> list[Buffer]:
        """Live buffers. Sizes are bytes, times CLOCK_MONOTONIC ns; `sort` as in docs/socket.md."""
        answer = self.ask(
            get="buffers",
            **_given(
                type=type,
                chip=chip,
                min_size=min_size,
                max_size=max_size,
                tid=tid,
                allocated_after_ns=allocated_after_ns,
                pre_attach=pre_attach,
                sort=sort,
                limit=limit,
            ),
        )
        return [from_json(Buffer, buffer) for buffer in answer["buffers"]]

    def failures(self) -> list[Failure]:
        """The last allocations that failed for want of memory, oldest first.

        Raises `TtmemError` if they cannot be seen in this version of tt-metal.
        """
        answer = self.ask(get="failures")
        found = answer.get("failures", answer)
        if found.get("count") is None:
            raise TtmemError(f"failed allocations of process {self.pid} are not known: {found.get('unknown_because')}")
        return [from_json(Failure, failure) for failure in found["last"]]

    @overload
    def subscribe(
        self, what: Literal["snapshots"] = "snapshots", *, interval: float = 0.5, buffers: bool = False
    ) -> Subscription[dict[str, Any]]: ...

    @overload
    def subscribe(self, what: Literal["deltas"]) -> Subscription[Delta]: ...

    def subscribe(
        self, what: str = "snapshots", *, interval: float = 0.5, buffers: bool = False
    ) -> Union[Subscription[dict[str, Any]], Subscription[Delta]]:
        """Snapshots every `interval` seconds, or each change of the live buffers, until the process ends.

        Iterate over it; ``close()`` or a ``with`` block ends it. Changes are kept from when this returns.
        """
        if what == "deltas":
            return Subscription(self.connect(), deltas, subscribe="deltas")
        if what != "snapshots":
            raise ValueError(f"no subscription {what!r}: 'snapshots' or 'deltas'")
        more = {"buffers": True} if buffers else {}
        every = round(interval * 1000)
        return Subscription(self.connect(), snapshots, subscribe="snapshots", interval_ms=every, **more)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
