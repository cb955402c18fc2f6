"""What the marks of the pytest plugin ask for, and whether it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable, Optional, Union

from ._format import format_bytes, parse_share, parse_size
from ._layout import TYPES
from ._types import Buffer, Growth

_SHOWN_LEAKS = 8


@dataclass(frozen=True)
class Limit:
    """The most that a pool of any chip may be used."""

    #: As it was written.
    text: str
    #: Bytes, if that is what was written.
    size: Optional[int]
    #: The part of the pool's capacity, if that is what was written.
    share: Optional[float]

    @classmethod
    def parse(cls, written: Union[int, str]) -> Limit:
        """``4096``, ``"1 GiB"`` or ``"80%"``; ValueError for anything else."""
        share = parse_share(written)
        size = parse_size(written) if share is None else None
        return cls(written if isinstance(written, str) else format_bytes(size), size, share)

    def bytes_of(self, capacity: Optional[int]) -> Optional[int]:
        """The limit of a pool that is so large, bytes; None if that is not known."""
        if self.share is None:
            return self.size
        return None if capacity is None else int(capacity * self.share)


@dataclass(frozen=True)
class Demands:
    """All that is asked of one test."""

    #: The most use of a buffer type, on each chip.
    limits: dict[str, Limit]
    #: Logical bytes that may be left, of what was allocated; None: any.
    allowed_leak: Optional[int]

    def __bool__(self) -> bool:
        return bool(self.limits) or self.allowed_leak is not None


def parse_limits(arguments: tuple[Any, ...], options: Mapping[str, Any]) -> dict[str, Limit]:
    """The arguments of ``ttmem_limit``; ValueError says what is wrong."""
    if arguments or not options:
        raise ValueError("ttmem_limit takes buffer types by name, as in ttmem_limit(dram='1 GiB', l1='80%')")
    limits = {}
    for name, written in options.items():
        if name.upper() not in TYPES:
            raise ValueError(f"ttmem_limit: no buffer type {name!r}: {', '.join(kind.lower() for kind in TYPES)}")
        limits[name.upper()] = Limit.parse(written)
    return limits


def parse_allowance(arguments: tuple[Any, ...], options: Mapping[str, Any]) -> int:
    """The arguments of ``ttmem_no_leaks``; ValueError says what is wrong."""
    if arguments or set(options) - {"allow"}:
        raise ValueError("ttmem_no_leaks takes nothing, or allow='64 KiB'")
    return parse_size(options.get("allow", 0))


Capacity = Callable[[int, str], Optional[int]]


def broken_limits(
    limits: dict[str, Limit], devices: dict[int, dict[str, Growth]], capacity: Capacity
) -> list[str]:
    """What is over its limit, or cannot be told not to be."""
    problems = []
    for chip, pools in sorted(devices.items()):
        for kind, limit in limits.items():
            if kind not in pools:
                continue
            peak = pools[kind].peak
            most = limit.bytes_of(capacity(chip, kind) if limit.share is not None else None)
            if peak is None or most is None:
                what = "peak" if peak is None else "capacity"
                problems.append(f"chip {chip}: {kind} cannot be judged: its {what} is not known")
            elif peak > most:
                told = limit.text if limit.share is None else f"{limit.text} of it, {format_bytes(most)}"
                problems.append(
                    f"chip {chip}: {kind} peaked at {format_bytes(peak)} ({peak} bytes), "
                    f"{format_bytes(peak - most)} over the limit of {told}"
                )
    return problems


def broken_leaks(allowed: Optional[int], leaked: list[Buffer]) -> list[str]:
    """What was allocated and is still live, if that is more than is allowed."""
    total = sum(buffer.size for buffer in leaked)
    if allowed is None or not leaked or (allowed > 0 and total <= allowed):
        return []
    beyond = f", and {format_bytes(allowed)} are allowed" if allowed else ""
    problems = [f"{len(leaked)} buffers ({format_bytes(total)}) were allocated in the test and are still live{beyond}:"]
    for buffer in sorted(leaked, key=lambda buffer: -buffer.size)[:_SHOWN_LEAKS]:
        chips = ", ".join(map(str, buffer.chips))
        site = f", for {buffer.site}" if buffer.site else ""
        problems.append(f"  {buffer.type} {format_bytes(buffer.size)} at 0x{buffer.address:x} on chips {chips}{site}")
    if len(leaked) > _SHOWN_LEAKS:
        problems.append(f"  … and {len(leaked) - _SHOWN_LEAKS} more")
    return problems
