"""What ttmem tells by itself, as an iterator."""

from __future__ import annotations

from collections import deque
from typing import Any, Callable, Generic, Iterable, Iterator, Optional, TypeVar

from ._errors import Ended
from ._socket import Connection
from ._types import Delta, from_json

T = TypeVar("T")


class Subscription(Generic[T]):
    """Lines of a subscription as they come; ends when the process or ttmem does, or by `close`, of any thread.

    Raises `Refused` (``too_slow``) if the caller does not keep up, and `Ended` if ttmem was killed, so
    that what came is not all there was.
    """

    def __init__(
        self, connection: Connection, parts: Callable[[dict[str, Any]], Iterable[T]], **request: Any
    ) -> None:
        #: Number of the last delta before the subscription.
        self.sequence = 0
        self._connection = connection
        self._parts = parts
        self._ready: deque[T] = deque()
        try:
            self._take(connection.ask(**request))
        except BaseException:
            connection.close()
            raise
        connection.wait_for_ever()

    def _take(self, line: dict[str, Any]) -> None:
        if line["schema"] == "ttmem.subscribed/1":
            self.sequence = line.get("sequence") or 0
        else:
            self._ready.extend(self._parts(line))

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        while not self._connection.closed:
            if self._ready:
                return self._ready.popleft()
            line = self._next_line()
            if line is None:
                self.close()
            else:
                self._take(line)
        raise StopIteration

    def _next_line(self) -> Optional[dict[str, Any]]:
        """The next line; None at the end."""
        try:
            return self._connection.line()
        except Ended:
            if self._connection.closed:
                return None
            raise

    def close(self) -> None:
        """Ends it: what has not been taken yet is dropped, and a thread that waits for more is woken."""
        self._connection.close()

    def __enter__(self) -> Subscription[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def snapshots(line: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """The snapshots in a line."""
    return [line] if line["schema"] == "ttmem.snapshot/1" else []


def deltas(line: dict[str, Any]) -> Iterable[Delta]:
    """The deltas in a line."""
    return [from_json(Delta, delta) for delta in line.get("deltas", [])]
