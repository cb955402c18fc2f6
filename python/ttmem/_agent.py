"""Starts a ttmem that watches this process, and ends it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Optional

from ._errors import TtmemError
from ._monitor import Monitor

#: How long it may take to attach, seconds.
PATIENCE = 60.0
#: How long it may take to end, seconds: it notices at its next line of output, every half second.
PATIENCE_AT_END = 10.0
_TICK = 0.005


def has_library() -> bool:
    """Whether this process has loaded tt-metal."""
    return "libtt_metal" in Path("/proc/self/maps").read_text(errors="replace")


class Agent:
    """A running ``ttmem attach``, as root or by ``sudo -n``.

    What it prints comes to a socket of this process. By ``sudo`` it is root's, and may not be
    signalled: it ends when nobody takes its output any more, and with this process in any case.
    """

    def __init__(self, binary: str = "ttmem", directory: Optional[str] = None, stacks: bool = False) -> None:
        # ttmem itself does not read the variable, by which a Monitor would look for its table.
        directory = directory or os.environ.get("TTMEM_TABLE_DIR") or None
        command = [binary, "attach", "--headless", "--pid", str(os.getpid())]
        if stacks:
            command.append("--stacks")
        if directory is not None:
            command += ["--table-dir", directory]
        if os.geteuid() != 0:
            command = ["sudo", "-n", *command]
        self._command = " ".join(command)
        self._directory = directory
        self._log = tempfile.TemporaryFile()
        self._output, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs.fileno(), stderr=self._log)
        except OSError as error:
            self._output.close()
            self._log.close()
            raise TtmemError(f"cannot start `{self._command}`: {error.strerror}; is ttmem installed?") from None
        finally:
            theirs.close()
        self._reader = threading.Thread(target=self._take_output, name="ttmem-output", daemon=True)
        self._reader.start()

    def wait(self) -> Monitor:
        """Waits until it watches this process and has read the older buffers. If not, it is ended."""
        try:
            return self._wait()
        except TtmemError:
            self.end()
            raise

    def _wait(self) -> Monitor:
        deadline = time.monotonic() + PATIENCE
        why = "it says nothing"
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                said = self._last_words() or f"exit code {self._process.returncode}"
                raise TtmemError(f"`{self._command}` has ended: {said}")
            try:
                monitor = Monitor(directory=self._directory)
                if monitor.process().state == "running":
                    return monitor
                monitor.close()
            except TtmemError as error:
                why = str(error)
            time.sleep(_TICK)
        said = self._last_words()
        heard = f"; it said: {said}" if said else ""
        raise TtmemError(f"`{self._command}` does not watch this process after {PATIENCE:.0f} s: {why}{heard}")

    def end(self) -> None:
        """Ends it, and waits for that."""
        with contextlib.suppress(OSError):
            self._output.shutdown(socket.SHUT_RDWR)
        try:
            if self._process.poll() is None:
                self._end_process()
        finally:
            self._reader.join()
            self._output.close()
            self._log.close()

    def _end_process(self) -> None:
        with contextlib.suppress(OSError):
            self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE_AT_END)
            return
        # What may not be killed either is left to end with this process.
        with contextlib.suppress(OSError):
            self._process.kill()
            self._process.wait()

    def _take_output(self) -> None:
        """Takes what it prints, lest it waits for that, until `end` or until it has ended."""
        with contextlib.suppress(OSError):
            while self._output.recv(1 << 16):
                pass

    def _last_words(self) -> str:
        """The last line of its standard error; empty if there is none."""
        # It writes at the place that a `seek` would move.
        start = max(0, os.fstat(self._log.fileno()).st_size - 4096)
        lines = os.pread(self._log.fileno(), 4096, start).decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""
