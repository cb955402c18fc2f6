"""What ttmem answers. Sizes are bytes, times CLOCK_MONOTONIC nanoseconds; unknown is None, never 0."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Optional, Type, TypeVar

T = TypeVar("T")


def from_json(kind: Type[T], found: dict[str, Any]) -> T:
    """The fields of a dataclass, by their names; a key that is missing is None."""
    values = {field.name: found.get(field.name) for field in fields(kind)}  # type: ignore[arg-type]
    stack = values.get("stack")
    if stack is not None:
        values["stack"] = [from_json(Frame, frame) for frame in stack]
    return kind(**values)


@dataclass(frozen=True)
class Frame:
    """A function of a call stack."""

    #: Its name, demangled, without parameters.
    function: Optional[str]
    #: The file that it is in, as the process sees it.
    module: Optional[str]
    #: Address in the file; without a file, in the process; None for a Python function.
    offset: Optional[int]
    #: The line of a Python function; None for others.
    line: Optional[int] = None


@dataclass(frozen=True)
class Pool:
    """The memory of one buffer type on one chip."""

    #: Buffer type.
    type: str
    #: Whether the chip has this pool; if not, the rest is 0.
    present: bool
    #: Live buffers.
    buffers: int
    #: Sum of their ``Buffer::size()``, bytes.
    logical_bytes: int
    #: What they take of the pool, bytes: of each bank × banks.
    used: Optional[int]
    #: Highest `used` since the attach, bytes.
    peak_used: Optional[int]
    #: Size of the pool, bytes.
    capacity: Optional[int]
    #: Allocations seen since the attach.
    allocations: int
    #: Frees seen since the attach of buffers whose allocation was seen.
    frees: int
    #: Frees seen since the attach of buffers from before it.
    pre_attach_frees: int
    #: What the live buffers take of each bank, bytes.
    bank_bytes: Optional[int]
    #: Banks of the pool.
    banks: Optional[int]


@dataclass(frozen=True)
class Device:
    """One chip; all numbers but `exact` are of one instant."""

    #: tt-metal's id.
    chip: int
    #: Whether ttmem vouches for the totals.
    exact: bool
    #: Its pools, by buffer type.
    pools: dict[str, Pool]
    #: Of all programs, the most that circular buffers take of one core, bytes.
    circular_core_bytes: Optional[int]
    #: Highest of that, bytes.
    circular_peak_core_bytes: Optional[int]
    #: What a core's L1 has for buffers, bytes.
    core_capacity_bytes: Optional[int]
    #: How near they and the tensors in L1 are: ``ok``, ``low`` or ``clash``.
    headroom_state: Optional[str]
    #: From the highest circular buffer to the lowest tensor in L1, bytes; negative if they clash.
    headroom_bytes: Optional[int]
    #: Programs seen that keep circular buffers on this chip.
    circular_programs: int
    #: Their circular and dataflow buffers with memory of their own.
    circular_buffers: int

    @property
    def dram(self) -> Pool:
        """The pool DRAM."""
        return self.pools["DRAM"]

    @property
    def l1(self) -> Pool:
        """The pool L1."""
        return self.pools["L1"]

    @property
    def l1_small(self) -> Pool:
        """The pool L1_SMALL."""
        return self.pools["L1_SMALL"]

    @property
    def trace(self) -> Pool:
        """The pool TRACE."""
        return self.pools["TRACE"]

    @property
    def system_memory(self) -> Pool:
        """The pool SYSTEM_MEMORY."""
        return self.pools["SYSTEM_MEMORY"]


@dataclass(frozen=True)
class Process:
    """What ttmem says of the process, and of its own numbers."""

    #: Process id as ttmem sees it.
    pid: int
    #: Process id in its own pid namespace, if that is another one.
    namespace_pid: Optional[int]
    #: Process id of the ttmem that writes.
    agent_pid: int
    #: When ttmem began, ns.
    attached_ns: int
    #: Every event up to this time is in the numbers, ns.
    time_ns: int
    #: ``starting``, ``running``, ``exited``, ``replaced`` or ``unwatched``.
    state: str
    #: Whether every total is known to equal the allocator's own.
    exact: bool
    #: Why not; empty if it is.
    inexact_because: str
    #: Records that could not be delivered.
    lost: int
    #: Events that disagreed with what was known.
    anomalies: int
    #: Allocations that failed for want of memory.
    failures: Optional[int]
    #: Command line.
    command: str
    #: Its tt-metal library.
    library: str
    #: That library's build id, hexadecimal.
    build_id: str


@dataclass(frozen=True)
class Buffer:
    """A live buffer."""

    #: ``Buffer::unique_id()``.
    unique_id: Optional[int]
    #: Buffer type.
    type: str
    #: Address on the device, the same on every chip and bank; with `cores`, that on the first core.
    address: int
    #: ``Buffer::size()``, bytes.
    size: int
    #: ``Buffer::page_size()``, bytes.
    page_size: int
    #: What it takes of each bank, bytes.
    bank_bytes: Optional[int]
    #: The chips that it lies on.
    chips: list[int]
    #: The mesh that it was allocated on.
    mesh: Optional[int]
    #: The thread that allocated it.
    tid: Optional[int]
    #: When, ns.
    allocated_ns: Optional[int]
    #: Whether it is from before the attach.
    pre_attach: bool
    #: Cores on which it lies, each at an address of its own; None: on all, at one address.
    cores: Optional[int] = None
    #: What called for it; None without ``--stacks``, or if it is not known.
    site: Optional[str] = None
    #: Its call stack, the innermost frame first; None likewise.
    stack: Optional[list[Frame]] = None
    #: Why the last frame is not the first of its thread; None if it is.
    stack_cut: Optional[str] = None
    #: So many frames at the end, all of Python, come after what was cut off.
    frames_beyond_cut: Optional[int] = None
    #: Why Python functions are lacking; None if none is.
    python_unknown: Optional[str] = None
    #: Why no stack is known; None if one is, or without ``--stacks``.
    stack_unknown: Optional[str] = None


@dataclass(frozen=True)
class Failure:
    """An allocation that failed for want of memory."""

    #: Counts the failures of the process from 1.
    id: int
    #: When, ns.
    time_ns: int
    #: The thread that asked.
    tid: int
    #: Buffer type.
    type: Optional[str]
    #: Of the whole buffer, bytes.
    size: Optional[int]
    #: Banks that it would lie on.
    banks: Optional[int]
    #: What each bank would have to give, bytes.
    bank_bytes: Optional[int]
    #: One bank, bytes.
    bank_size_bytes: Optional[int]
    #: Allocated of a bank, bytes.
    bank_allocated_bytes: Optional[int]
    #: Free of a bank, bytes.
    bank_free_bytes: Optional[int]
    #: Largest free block of a bank, bytes.
    bank_largest_free_bytes: Optional[int]
    #: The chips on which it would have lain.
    chips: Optional[list[int]]
    #: The mesh on which it was wanted.
    mesh: Optional[int]
    #: What called for it; None without ``--stacks``, or if it is not known.
    site: Optional[str] = None
    #: Its call stack, the innermost frame first; None likewise.
    stack: Optional[list[Frame]] = None
    #: Why the last frame is not the first of its thread; None if it is.
    stack_cut: Optional[str] = None
    #: So many frames at the end, all of Python, come after what was cut off.
    frames_beyond_cut: Optional[int] = None
    #: Why Python functions are lacking; None if none is.
    python_unknown: Optional[str] = None
    #: Why no stack is known; None if one is, or without ``--stacks``.
    stack_unknown: Optional[str] = None


@dataclass(frozen=True)
class Delta:
    """One change of the live buffers."""

    #: Counts from 1, without a gap.
    sequence: int
    #: When it happened, ns.
    time_ns: int
    #: The thread.
    tid: Optional[int]
    #: ``allocated`` or ``freed``.
    change: str
    #: ``event``, ``baseline`` or ``resync``.
    cause: str
    #: Names the buffer while it is live.
    buffer: int
    #: ``Buffer::unique_id()``.
    unique_id: Optional[int]
    #: Buffer type.
    type: str
    #: Address on the device.
    address: int
    #: ``Buffer::size()``, bytes.
    size: int
    #: What it takes of each bank, bytes.
    bank_bytes: Optional[int]
    #: What it takes of all banks of one chip, bytes.
    used_bytes: Optional[int]
    #: The chips that it lies on.
    chips: list[int]
    #: The mesh that it was allocated on.
    mesh: Optional[int]
    #: Page size, bytes.
    page_size: int
    #: Cores on which it lies, each at an address of its own; None: on all, at one address.
    cores: Optional[int]
    #: The thread that allocated it; None if that was not seen.
    allocated_tid: Optional[int]
    #: When it was allocated, ns; None if that was not seen.
    allocated_ns: Optional[int]
    #: Whether it was allocated before the attach.
    pre_attach: bool


@dataclass(frozen=True)
class Growth:
    """What happened to one pool since a mark."""

    #: Buffer type.
    type: str
    #: Live buffers now minus then.
    buffers: int
    #: Their logical bytes now minus then.
    logical_bytes: int
    #: Used bytes now minus then.
    increase: Optional[int]
    #: Highest use since, bytes, at whatever instant it was.
    peak: Optional[int]
    #: That minus the use then, bytes.
    peak_growth: Optional[int]
    #: Allocations seen since.
    allocations: int
    #: Frees seen since, those of buffers from before the attach included, unlike `frees` of a pool.
    frees: int

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Growth:
        """A pool of the answer to ``since``."""
        return cls(
            type=found["type"],
            buffers=found["buffers"],
            logical_bytes=found["logical_bytes"],
            increase=found["used_bytes"],
            peak=found["peak_used_bytes"],
            peak_growth=found["peak_growth_bytes"],
            allocations=found["allocations"],
            frees=found["frees"],
        )
