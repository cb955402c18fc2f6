"""A pytest plugin: limits what tests use of device memory, finds what they leave, ranks them.

What is measured is the call of the test function: not the set-up and tear-down of its fixtures,
of which some are other tests' too. A test that cannot be judged fails, and says why.
"""

from __future__ import annotations

import gc
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Optional

import pytest

from ._agent import Agent, has_library
from ._errors import TtmemError
from ._format import format_bytes
from ._limits import Demands, broken_leaks, broken_limits, parse_allowance, parse_limits
from ._monitor import Monitor
from ._track import track
from ._types import Growth

_MARKS = (
    "ttmem_limit(dram=None, l1=None, l1_small=None, trace=None, system_memory=None): the most that the test may use "
    "of a buffer type on each chip, as bytes, '1 GiB', or '80%' of the capacity",
    "ttmem_no_leaks(allow=0): all buffers that the test allocates must be gone when it returns, but for so many bytes",
)
_HEAVIEST = 10


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options."""
    group = parser.getgroup("ttmem", "memory of Tenstorrent devices, by ttmem")
    group.addoption("--ttmem", action="store_true", help="measure every test, and list the heaviest at the end")
    group.addoption(
        "--ttmem-attach", action="store_true", help="start ttmem on this process (as root, or by sudo -n) and end it"
    )
    group.addoption(
        "--ttmem-stacks", action="store_true", help="have that ttmem record what called for each buffer, for leaks"
    )
    group.addoption("--ttmem-binary", default="ttmem", metavar="FILE", help="the ttmem that --ttmem-attach starts")
    group.addoption("--ttmem-table-dir", default=None, metavar="DIR", help="where ttmem's tables are")


def pytest_configure(config: pytest.Config) -> None:
    """Makes the marks known, and measures."""
    for mark in _MARKS:
        config.addinivalue_line("markers", mark)
    config.pluginmanager.register(Measure(config), "ttmem-measure")


@pytest.fixture
def ttmem(request: pytest.FixtureRequest) -> Iterator[Monitor]:
    """A `ttmem.Monitor` of the process that runs the tests."""
    measure = request.config.pluginmanager.get_plugin("ttmem-measure")
    assert isinstance(measure, Measure)
    try:
        monitor = measure.monitor()
    except TtmemError as error:
        pytest.fail(measure.how(error), pytrace=False)
    yield monitor


def demands_of(item: pytest.Item) -> Demands:
    """What the marks of a test ask for: the nearest mark counts. ValueError says what is wrong."""
    limits = {}
    for mark in reversed(list(item.iter_markers("ttmem_limit"))):
        limits.update(parse_limits(mark.args, mark.kwargs))
    leak = item.get_closest_marker("ttmem_no_leaks")
    return Demands(limits, None if leak is None else parse_allowance(leak.args, leak.kwargs))


@dataclass(frozen=True)
class Row:
    """What one test has used."""

    test: str
    chip: int
    pools: dict[str, Growth]
    exact: bool

    @classmethod
    def received(cls, row: dict[str, Any]) -> Row:
        """One that another process has sent as a ``dict``."""
        return cls(**{**row, "pools": {kind: Growth(**growth) for kind, growth in row["pools"].items()}})

    def weight(self) -> tuple[int, int]:
        """What the heaviest tests are found by: peak of DRAM, then of L1, bytes."""
        dram, l1 = (self.pools.get(kind) for kind in ("DRAM", "L1"))
        return (dram.peak or 0 if dram else 0, l1.peak or 0 if l1 else 0)


class Measure:
    """Measures the tests of one session."""

    def __init__(self, config: pytest.Config) -> None:
        self._all = bool(config.getoption("--ttmem"))
        self._stacks = bool(config.getoption("--ttmem-stacks"))
        self._attach = bool(config.getoption("--ttmem-attach")) or self._stacks
        self._binary = str(config.getoption("--ttmem-binary"))
        self._directory: Optional[str] = config.getoption("--ttmem-table-dir")
        self._agent: Optional[Agent] = None
        self._not_attached: Optional[str] = None
        self._monitor: Optional[Monitor] = None
        self._rows: list[Row] = []
        self._unmeasured: dict[str, int] = {}
        self._workers_lost = 0

    def monitor(self) -> Monitor:
        """ttmem's view of this process; started first if that was asked for."""
        if self._monitor is None and self._attach:
            self._monitor = self._attached()
        elif self._monitor is None:
            self._monitor = Monitor(directory=self._directory)
        return self._monitor

    def _attached(self) -> Monitor:
        """Attaches once: what has failed is told again at once, not tried again by each test."""
        if self._not_attached is not None:
            raise TtmemError(self._not_attached)
        if not has_library():
            raise TtmemError("this process has not loaded tt-metal: import ttnn at the top of the test file")
        try:
            self._agent = Agent(self._binary, self._directory, self._stacks)
            return self._agent.wait()
        except TtmemError as error:
            self._agent, self._not_attached = None, str(error)
            raise

    def how(self, error: TtmemError) -> str:
        """The error, and what to do."""
        hint = "" if self._attach else "; or let `pytest --ttmem-attach` start it"
        return f"ttmem: {error}{hint}"

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Refuses marks that say nothing."""
        for item in items:
            try:
                demands_of(item)
            except ValueError as error:
                raise pytest.UsageError(f"{item.nodeid}: {error}") from None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Measures a test, and judges it if it passes."""
        demands = demands_of(item)
        if not demands and not self._all:
            return (yield)
        gc.collect()
        try:
            measured = track(monitor=self.monitor()).__enter__()
        except TtmemError as error:
            if demands:
                pytest.fail(self.how(error), pytrace=False)
            self._note_unmeasured(self.how(error))
            return (yield)
        try:
            result = yield
        except BaseException as error:
            # It fails by itself. What its frames hold is no leak.
            measured.__exit__(type(error), error, error.__traceback__)
            if not isinstance(error, pytest.skip.Exception):
                self._note_failed(item, measured)
            raise
        gc.collect()
        problems = self._judge(item, demands, measured)
        if problems:
            pytest.fail("\n".join(problems), pytrace=False)
        return result

    def _note(self, item: pytest.Item, measured: track) -> None:
        rows = [Row(item.nodeid, chip, pools, measured.exact) for chip, pools in measured.devices.items()]
        self._rows += rows

    def _note_failed(self, item: pytest.Item, measured: track) -> None:
        # One that ran out of memory is the heaviest of all.
        try:
            self._note(item, measured)
        except TtmemError as error:
            self._note_unmeasured(f"ttmem: {error}")

    def _note_unmeasured(self, why: str, count: int = 1) -> None:
        self._unmeasured[why] = self._unmeasured.get(why, 0) + count

    def _judge(self, item: pytest.Item, demands: Demands, measured: track) -> list[str]:
        try:
            measured.__exit__(None, None, None)
            self._note(item, measured)
            devices = measured.devices
            if not demands:
                return []
            if not measured.exact:
                return [f"ttmem: the test cannot be judged, the numbers are not exact: {measured.inexact_because}"]
            problems = broken_limits(demands.limits, devices, self._capacity)
            problems += broken_leaks(demands.allowed_leak, measured.leaked)
            return [f"ttmem: {problems[0]}", *problems[1:]] if problems else []
        except TtmemError as error:
            if not demands:
                self._note_unmeasured(f"ttmem: {error}")
                return []
            return [f"ttmem: the test cannot be judged: {error}"]

    def _capacity(self, chip: int, kind: str) -> Optional[int]:
        return self.monitor().query_device(chip).pools[kind].capacity

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """In a worker of pytest-xdist: has what was measured sent to the process that lists it."""
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            rows = [asdict(row) for row in self._rows]
            output["ttmem"] = {"rows": rows, "unmeasured": self._unmeasured}

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """In the process that lists: takes what a worker of pytest-xdist has measured."""
        found = getattr(node, "workeroutput", {}).get("ttmem")
        if found is None:
            self._workers_lost += 1
            return
        self._rows += map(Row.received, found["rows"])
        for why, count in found["unmeasured"].items():
            self._note_unmeasured(why, count)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Lists the heaviest tests."""
        if not self._all:
            return
        terminalreporter.section("ttmem: the heaviest tests")
        line = "{:>10} {:>10} {:>10} {:>10} {:>5}  {}".format
        terminalreporter.write_line(line("DRAM peak", "grew by", "L1 peak", "grew by", "chip", "test"))
        for row in sorted(self._rows, key=Row.weight, reverse=True)[:_HEAVIEST]:
            figures = []
            for kind in ("DRAM", "L1"):
                pool = row.pools.get(kind)
                figures += [format_bytes(pool.peak if pool else None), format_bytes(pool.peak_growth if pool else None)]
            doubt = "" if row.exact else " (not exact)"
            terminalreporter.write_line(line(*figures, row.chip, row.test + doubt))
        for why, count in self._unmeasured.items():
            terminalreporter.write_line(f"{count} tests were not measured: {why}")
        if self._workers_lost:
            terminalreporter.write_line(f"{self._workers_lost} workers have crashed: what they measured is not listed")

    def pytest_unconfigure(self) -> None:
        """Ends the ttmem that was started."""
        if self._monitor is not None:
            self._monitor.close()
        if self._agent is not None:
            self._agent.end()
