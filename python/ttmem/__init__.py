"""What a program holds of the memory of its Tenstorrent devices, asked from a running ttmem.

    with ttmem.track(device=0) as m:
        run_model()
    print(ttmem.format_bytes(m.increase), ttmem.format_bytes(m.peak), m.leaked)

Sizes are bytes, times CLOCK_MONOTONIC nanoseconds. **None means not known, never 0.**
"""

from ._errors import Broken, Denied, Ended, NoDevice, NotWatched, Refused, Stale, TtmemError
from ._format import format_bytes, parse_size
from ._monitor import Monitor
from ._socket import Connection
from ._subscription import Subscription
from ._track import track
from ._types import Buffer, Delta, Device, Failure, Frame, Growth, Pool, Process

__all__ = [
    "Broken",
    "Buffer",
    "Connection",
    "Delta",
    "Denied",
    "Device",
    "Ended",
    "Failure",
    "Frame",
    "Growth",
    "Monitor",
    "NoDevice",
    "NotWatched",
    "Pool",
    "Process",
    "Refused",
    "Stale",
    "Subscription",
    "TtmemError",
    "format_bytes",
    "parse_size",
    "track",
]
__version__ = "0.1.0"
