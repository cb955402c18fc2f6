"""Sizes as people write and read them."""

from __future__ import annotations

import re
from typing import Optional, Union

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_FACTORS = {"": 1, "B": 1}
_FACTORS.update({unit.upper(): 1024**power for power, unit in enumerate(_UNITS) if power})
_FACTORS.update({unit[0]: 1024**power for power, unit in enumerate(_UNITS) if power})
_FACTORS.update({"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12})
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")
_SHARE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")


def format_bytes(size: Optional[int]) -> str:
    """A number of bytes, as ``1.5 MiB``; ``–`` if it is not known."""
    if size is None:
        return "–"
    sign, size = ("-", -size) if size < 0 else ("", size)
    if size < 1024:
        return f"{sign}{size} B"
    power = min((size.bit_length() - 1) // 10, len(_UNITS) - 1)
    tenths = (size * 10 + 1024**power // 2) // 1024**power
    if tenths >= 10240 and power < len(_UNITS) - 1:
        power, tenths = power + 1, 10
    return f"{sign}{tenths // 10}.{tenths % 10} {_UNITS[power]}"


def parse_size(size: Union[int, str]) -> int:
    """Bytes of ``4096``, ``"64 KiB"``, ``"1.5GiB"``, ``"2M"`` (1024-based) or ``"1 GB"`` (1000-based)."""
    if isinstance(size, bool) or not isinstance(size, (int, str)):
        raise ValueError(f"{size!r} is no size: write bytes as a number, or as in '64 KiB'")
    if isinstance(size, int):
        if size < 0:
            raise ValueError(f"{size} is no size: it is negative")
        return size
    found = _SIZE.fullmatch(size)
    factor = _FACTORS.get(found.group(2).upper()) if found else None
    if found is None or factor is None:
        raise ValueError(f"{size!r} is no size: write it as in '64 KiB', '1.5 GiB'")
    whole, _, fraction = found.group(1).partition(".")
    scale: int = 10 ** len(fraction)
    return int(whole) * factor + int(fraction or 0) * factor // scale


def parse_share(text: Union[int, str]) -> Optional[float]:
    """The part of one that ``"80%"`` says; None if it is no percentage."""
    found = _SHARE.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return None
    share = float(found.group(1)) / 100
    if share > 1:
        raise ValueError(f"{text!r} is more than there is")
    return share
