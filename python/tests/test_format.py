"""Sizes, and the arguments of the marks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ttmem import format_bytes, parse_size
from ttmem._limits import Limit, broken_leaks, broken_limits, parse_allowance, parse_limits
from ttmem._types import Buffer, Growth


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "–"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (3 << 19, "1.5 MiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (-2048, "-2.0 KiB"),
        (5 << 50, "5.0 PiB"),
        (1 << 63, "8192.0 PiB"),
    ],
)
def test_format(size: int, text: str) -> None:
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [(7, 7), ("7", 7), ("7 B", 7), ("1 KiB", 1024), ("1.5MiB", 3 << 19), ("2g", 2 << 30), ("1 GB", 10**9)],
)
def test_parse(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "KiB", "-1", -1, "1 XiB", "1e3", True, 1.5, None])
def test_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        parse_size(text)


def test_marks() -> None:
    assert Limit.parse("80%").bytes_of(1000) == 800
    assert Limit.parse("80%").bytes_of(None) is None
    assert Limit.parse("1 KiB").bytes_of(None) == 1024
    assert parse_allowance((), {}) == 0
    for arguments, options in [((), {}), (("1 GiB",), {}), ((), {"drum": 1}), ((), {"l1": "180%"})]:
        with pytest.raises(ValueError):
            parse_limits(arguments, options)
    with pytest.raises(ValueError, match="takes nothing"):
        parse_allowance((), {"alow": 1})


def growth(peak: object) -> dict[str, Growth]:
    return {"DRAM": Growth("DRAM", 0, 0, 0, peak, 0, 0, 0)}  # type: ignore[arg-type]


def test_limits_are_judged_chip_by_chip() -> None:
    limits = parse_limits((), {"dram": "50%"})
    devices = {0: growth(512), 1: growth(513), 2: growth(None)}
    problems = broken_limits(limits, devices, lambda chip, kind: 1024)
    assert len(problems) == 2
    assert problems[0].startswith("chip 1: DRAM peaked at 513 B (513 bytes), 1 B over the limit of 50%")
    assert "cannot be judged" in problems[1]
    assert "capacity is not known" in broken_limits(limits, {0: growth(1)}, lambda chip, kind: None)[0]


def test_leaks() -> None:
    buffer = Buffer(1, "L1", 4096, 2048, 1024, None, [0], None, None, None, False)
    assert broken_leaks(None, [buffer]) == []
    assert broken_leaks(0, []) == []
    assert broken_leaks(2048, [buffer]) == []
    assert "2.0 KiB" in broken_leaks(2047, [buffer])[0]
    assert broken_leaks(0, [buffer])[1].endswith("on chips 0")
    assert broken_leaks(0, [replace(buffer, site="ttnn::zeros")])[1].endswith("on chips 0, for ttnn::zeros")
    assert broken_leaks(0, [buffer] * 20)[-1] == "  … and 12 more"
