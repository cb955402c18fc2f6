"""Starts a ttmem that watches this process, and ends it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Optional

from ._errors import TtmemError
from ._monitor import Monitor

#: How long it may take to attach, seconds.
PATIENCE = 60.0
_TICK = 0.005


def has_library() -> bool:
    """Whether this process has loaded tt-metal."""
    return "libtt_metal" in Path("/proc/self/maps").read_text(errors="replace")


class Agent:
    """A running ``ttmem attach``, as root or by ``sudo -n``."""

    def __init__(self, binary: str = "ttmem", directory: Optional[str] = None, stacks: bool = False) -> None:
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
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._log
            )
        except OSError as error:
            self._log.close()
            raise TtmemError(f"cannot start `{self._command}`: {error.strerror}; is ttmem installed?") from None

    def wait(self) -> Monitor:
        """Waits until it watches this process and has read the older buffers."""
        deadline = time.monotonic() + PATIENCE
        why = "it says nothing"
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise TtmemError(f"`{self._command}` has ended: {self._last_words()}")
            try:
                monitor = Monitor(directory=self._directory)
                if monitor.process().state == "running":
                    return monitor
                monitor.close()
            except TtmemError as error:
                why = str(error)
            time.sleep(_TICK)
        self.end()
        raise TtmemError(f"`{self._command}` does not watch this process after {PATIENCE:.0f} s: {why}")

    def end(self) -> None:
        """Ends it, and waits for that."""
        if self._process.poll() is None:
            with contextlib.suppress(OSError):
                self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if not self._log.closed:
            self._log.close()

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.returncode}"
