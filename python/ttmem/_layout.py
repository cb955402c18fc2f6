"""The layout of the shared table, as docs/shared-table.md has it: offsets in bytes."""

from __future__ import annotations

MAGIC = int.from_bytes(b"TTMEMTAB", "little")
VERSION = 1
#: Stands for a number that is not known.
UNKNOWN = (1 << 64) - 1
#: tt-metal's buffer types, in the order of the pools.
TYPES = ("DRAM", "L1", "SYSTEM_MEMORY", "L1_SMALL", "TRACE")
#: What has become of the process.
STATES = ("starting", "running", "exited", "replaced", "unwatched")
#: How near circular buffers and tensors are in L1; unknown is None.
HEADROOM_STATES = (None, "ok", "low", "clash")
#: What a broken header can ask for, at most.
MAX_FILE_BYTES = 64 << 20

HEADER = {
    "MAGIC": 0,
    "VERSION": 8,
    "FILE_BYTES": 16,
    "CHIPS_OFFSET": 24,
    "CHIP_BYTES": 32,
    "CHIP_SLOTS": 40,
    "POOLS_OFFSET": 48,
    "POOL_BYTES": 56,
    "PID": 64,
    "START_TICKS": 72,
    "NAMESPACE_PID": 80,
    "AGENT_PID": 88,
    "AGENT_START_TICKS": 96,
    "ATTACHED_NS": 104,
    "STALE_AFTER_NS": 112,
    "SEQUENCE": 128,
    "HEARTBEAT_NS": 136,
    "TIME_NS": 144,
    "STATE": 152,
    "EXACT": 160,
    "LOST_RING_FULL": 168,
    "LOST_READ_FAULT": 176,
    "ANOMALIES": 184,
    "CHIPS": 192,
    "CHIPS_LEFT_OUT": 200,
    "FAILURES": 208,
    "RESYNCS": 216,
    "COMMAND": 256,
    "LIBRARY": 768,
    "BUILD_ID": 1280,
    "INEXACT_BECAUSE": 1344,
}
HEADER_BYTES = 1856
CHIP = {
    "SEQUENCE": 0,
    "CHIP": 8,
    "CIRCULAR_CORE_BYTES": 16,
    "CIRCULAR_PEAK_CORE_BYTES": 24,
    "CORE_CAPACITY_BYTES": 32,
    "HEADROOM_STATE": 40,
    "HEADROOM_BYTES": 48,
    "CIRCULAR_PROGRAMS": 56,
    "CIRCULAR_BUFFERS": 64,
}
CHIP_LAST_BYTE = 72
POOL = {
    "BUFFERS": 0,
    "LOGICAL_BYTES": 8,
    "USED_BYTES": 16,
    "PEAK_USED_BYTES": 24,
    "CAPACITY_BYTES": 32,
    "ALLOCATIONS": 40,
    "FREES": 48,
    "PRE_ATTACH_FREES": 56,
    "BANK_BYTES": 64,
    "BANKS": 72,
    "PRESENT": 80,
}
POOL_LAST_BYTE = 88
