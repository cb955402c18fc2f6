"""Asks ttmem on the socket beside the table: one JSON object per line each way (docs/socket.md)."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
from typing import Any, Optional

from ._errors import Broken, Denied, Ended, NotWatched, Refused, TtmemError

#: How long an answer may take, seconds.
PATIENCE = 30.0


class Connection:
    """A connection. One thread at a time uses it; any may close it. Marks live and die with it."""

    def __init__(self, directory: str, pid: int, patience: float = PATIENCE) -> None:
        #: The socket's file.
        self.path = os.path.join(directory, f"{pid}.sock")
        self._closing = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(patience)
        try:
            self._connect(directory, pid)
        except BaseException:
            self._socket.close()
            raise
        self._lines = self._socket.makefile("rb")

    def _connect(self, directory: str, pid: int) -> None:
        # By the directory's descriptor: a socket's address has room for 107 bytes.
        try:
            folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise NotWatched(f"cannot use {directory}: {error.strerror}") from None
        try:
            short = f"/proc/self/fd/{folder}/{pid}.sock"
            found = os.lstat(short)
            if not stat.S_ISSOCK(found.st_mode) or found.st_uid not in (0, os.geteuid()):
                raise Broken(f"{self.path} is refused: it is no socket of root's or of the caller's")
            self._socket.connect(short)
        except FileNotFoundError:
            raise NotWatched(f"{self.path} is not there: this ttmem answers no questions, or has ended") from None
        except PermissionError:
            raise Denied(
                f"may not connect to {self.path}: that may root, the user of the process, "
                "and the members of ttmem's --group"
            ) from None
        except OSError as error:
            raise NotWatched(f"cannot connect to {self.path}: {error.strerror}; is that ttmem still there?") from None
        finally:
            os.close(folder)

    def close(self) -> None:
        """Ends it, and with it its marks and subscriptions. A thread that waits for a line is woken."""
        self._closing = True
        # First: who waits for a line holds the lock without which `_lines` cannot be closed.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        # In a signal handler that came amid `line`, which then closes it itself.
        with contextlib.suppress(RuntimeError):
            self._lines.close()
        self._socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Sends one request and returns its answer. Raises `Refused` for an error.

        If anything else comes between, be it a `KeyboardInterrupt`, the connection is closed.
        """
        try:
            self.send(**request)
            answer = self.line()
            if answer is None:
                raise Ended(f"{self.path} was closed: ttmem has ended")
        except Refused:
            raise
        except BaseException:
            # The answer may come still, and would be taken for that of the next request.
            self.close()
            raise
        return answer

    @property
    def closed(self) -> bool:
        """Whether it has been closed on this side."""
        return self._closing

    def send(self, **request: Any) -> None:
        """Sends one request."""
        if self._closing:
            raise self._was_closed()
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise self._broken_off(error) from None

    def wait_for_ever(self) -> None:
        """From now on a line may take as long as it takes."""
        self._socket.settimeout(None)

    def line(self) -> Optional[dict[str, Any]]:
        """The next line; None at the end. Raises `Ended` if it breaks off before."""
        try:
            raw = self._lines.readline()
        except socket.timeout:
            raise TtmemError(f"{self.path}: no answer in time; is that ttmem stopped?") from None
        except OSError as error:
            raise self._broken_off(error) from None
        except ValueError:
            # What Python says of reading a file that was closed.
            raise self._was_closed() from None
        if not raw.endswith(b"\n"):
            if self._closing:
                self._lines.close()
                raise self._was_closed()
            raise Ended(f"{self.path} was closed: ttmem has ended and not said so: it was killed, or this reader too slow")
        try:
            found = json.loads(raw)
        except ValueError:
            raise Broken(f"{self.path} does not speak ttmem's language: {raw[:80]!r}") from None
        return self._checked(found)

    def _broken_off(self, error: OSError) -> Ended:
        if self._closing:
            return self._was_closed()
        return Ended(f"{self.path} was closed: ttmem has ended ({error.strerror})")

    def _was_closed(self) -> Ended:
        return Ended(f"the connection to {self.path} was closed, by close() or because a request was interrupted")

    def _checked(self, found: Any) -> Optional[dict[str, Any]]:
        schema = found.get("schema") if isinstance(found, dict) else None
        if schema == "ttmem.error/1":
            code, message = found["error"]["code"], found["error"]["message"]
            kind = Denied(f"{self.path}: {message}") if code == "not_allowed" else None
            raise kind or Refused(f"{self.path}: {message}", code)
        if schema == "ttmem.end/1":
            return None
        if not isinstance(schema, str) or not schema.startswith("ttmem."):
            raise Broken(f"{self.path} does not speak ttmem's language: {str(found)[:80]}")
        answer: dict[str, Any] = found
        return answer
