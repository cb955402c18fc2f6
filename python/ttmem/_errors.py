"""Why something failed. A message says what, on which object, and what to do."""

from __future__ import annotations


class TtmemError(Exception):
    """Any failure of this package."""


class NotWatched(TtmemError):
    """No ttmem watches the process."""


class Denied(TtmemError):
    """There is a ttmem, and the caller may not ask it."""


class Broken(TtmemError):
    """What should be ttmem's is not, or is of another version."""


class Stale(TtmemError):
    """ttmem was killed or is stopped: the numbers are old."""


class Ended(TtmemError):
    """The process or ttmem has ended: there are no newer numbers."""


class NoDevice(TtmemError):
    """The process has not used that chip."""


class Refused(TtmemError):
    """ttmem refused a request."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        #: Short name of the reason, as in docs/socket.md.
        self.code = code
