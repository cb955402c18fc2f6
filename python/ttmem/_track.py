"""What a part of a program does with device memory, exact to the instant at which it begins and ends."""

from __future__ import annotations

from typing import Any, Optional

from ._errors import NoDevice, TtmemError
from ._monitor import Monitor
from ._socket import Connection
from ._types import Buffer, Growth, from_json

_MARK = "track"


class track:  # noqa: N801 - reads like a statement
    """Marks the beginning of a ``with`` block and tells what happened since.

    `device` is the chip that `increase`, `peak` and `by_type` are of; `type` the buffer type that
    `increase` and `peak` are of. In the block the figures are those up to now, after it those at
    its end. Every event counts that happened before; nothing is missed by lag.
    """

    def __init__(self, device: int = 0, type: str = "DRAM", monitor: Optional[Monitor] = None) -> None:
        #: The chip.
        self.device = device
        #: The buffer type.
        self.type = type
        self._monitor = monitor
        self._own: Optional[Monitor] = None
        self._connection: Optional[Connection] = None
        self._end: Optional[tuple[dict[str, Any], dict[str, Any]]] = None

    def __enter__(self) -> track:
        if self._monitor is None:
            self._own = Monitor()
        monitor = self._monitor or self._own
        assert monitor is not None
        # Marks belong to a connection: with one of its own, tracks do not disturb each other.
        self._end = None
        self._connection = monitor.connect()
        self._connection.ask(mark=_MARK)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            self._end = self._now()
        except TtmemError:
            # The block's own error says more.
            if error is None:
                raise
        finally:
            self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._own is not None:
            self._own.close()
            self._own = None

    def _now(self) -> tuple[dict[str, Any], dict[str, Any]]:
        if self._end is not None:
            return self._end
        if self._connection is None:
            raise TtmemError("track: nothing was measured; read its figures in or after its `with` block")
        since: dict[str, Any] = self._connection.ask(since=_MARK)["since"]
        live = self._connection.ask(get="buffers", allocated_after_ns=since["marked_ns"])
        return since, live

    @property
    def devices(self) -> dict[int, dict[str, Growth]]:
        """What happened to each pool of each chip, by chip and buffer type."""
        since, _ = self._now()
        return {
            device["chip"]: {pool["type"]: Growth.from_json(pool) for pool in device["pools"]}
            for device in since["devices"]
        }

    @property
    def by_type(self) -> dict[str, Growth]:
        """What happened to each pool of the chip."""
        found = self.devices
        if self.device not in found:
            used = ", ".join(map(str, sorted(found))) or "none"
            raise NoDevice(f"the process has not used chip {self.device} (used: {used}): open the device first")
        return found[self.device]

    def _growth(self) -> Growth:
        found = self.by_type
        if self.type not in found:
            raise NoDevice(f"chip {self.device} has no pool {self.type!r}: it has {', '.join(found)}")
        return found[self.type]

    @property
    def increase(self) -> Optional[int]:
        """Used bytes at the end minus at the beginning; None if not known."""
        return self._growth().increase

    @property
    def peak(self) -> Optional[int]:
        """Highest use in between, bytes; None if not known."""
        return self._growth().peak

    @property
    def peak_growth(self) -> Optional[int]:
        """`peak` minus the use at the beginning, bytes; None if not known."""
        return self._growth().peak_growth

    @property
    def leaked(self) -> list[Buffer]:
        """Buffers of any chip and type that were allocated since and are still live."""
        _, live = self._now()
        return [from_json(Buffer, buffer) for buffer in live["buffers"]]

    @property
    def exact(self) -> bool:
        """Whether ttmem vouches for the figures: nothing was in doubt at any time since."""
        # An older ttmem only says whether the live buffers are exact at the end.
        return all(answer.get("exact", True) for answer in self._now())

    @property
    def inexact_because(self) -> str:
        """Why not; empty if it does."""
        reasons = [reason for answer in self._now() for reason in answer.get("inexact_because", [])]
        return "; ".join(dict.fromkeys(reasons))
