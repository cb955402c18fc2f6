"""The socket: requests and answers, against a server that answers from a script."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
import ttmem
from conftest import BUFFER, CHIP_BYTES, CHIPS_OFFSET, POOLS_OFFSET, FakeServer, HandMade, answers
from ttmem import _layout as layout


def test_requests_are_as_documented(monitor: ttmem.Monitor, server: FakeServer) -> None:
    assert monitor.query_device(0).dram.used == 4096
    found = monitor.buffers(type="L1", chip=0, sort="-size", limit=3)
    assert found[0].unique_id == 7 and found[0].bank_bytes is None
    assert found[0].site == "ttnn::zeros" and found[0].stack_unknown is None
    assert found[0].stack == [
        ttmem.Frame(function="forward", module="/a/model.py", offset=None, line=42),
        ttmem.Frame(function="main", module="/bin/model", offset=16),
    ]
    assert found[0].frames_beyond_cut == 0 and found[0].python_unknown is None
    assert monitor.failures() == []
    assert server.requests == [
        {"get": "sync"},
        {"get": "buffers", "type": "L1", "chip": 0, "sort": "-size", "limit": 3},
        {"get": "failures"},
    ]


def test_buffers_have_every_documented_key() -> None:
    text = (Path(__file__).parents[2] / "docs/json.md").read_text()
    part = text.split("## `buffers[]`\n")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in part.splitlines() if line.startswith("| `")]
    documented = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert documented == {field.name for field in dataclasses.fields(ttmem.Buffer)}


def test_a_sync_is_of_the_table_that_is_read(monitor: ttmem.Monitor, server: FakeServer, table: HandMade) -> None:
    newer = HandMade(table.directory)
    newer.word(CHIPS_OFFSET + CHIP_BYTES + POOLS_OFFSET + layout.POOL["USED_BYTES"], 8192)
    # The file that is open looks as if it were still written: its ttmem was killed a moment ago.
    table.path.unlink()
    newer.write()
    assert monitor.query_device(0).dram.used == 8192
    assert server.requests == [{"get": "sync"}, {"get": "sync"}]
    table.path.unlink()
    with pytest.raises(ttmem.Ended, match="is gone"):
        monitor.sync()


def test_a_refusal_says_why(monitor: ttmem.Monitor) -> None:
    with pytest.raises(ttmem.Refused, match="no such request") as caught:
        monitor.ask(get="nonsense")
    assert caught.value.code == "bad_request"
    monitor.sync()


def test_what_breaks_off_has_not_ended(table: HandMade) -> None:
    delta = {**BUFFER, "sequence": 5, "time_ns": 1, "change": "allocated", "cause": "event", "buffer": 1}
    lines = [
        {"schema": "ttmem.subscribed/1", "sequence": 4},
        {"schema": "ttmem.deltas/1", "deltas": [delta]},
        None,
    ]
    table.write()
    server = FakeServer(table.directory / f"{table.pid}.sock", lambda _: lines)
    with ttmem.Monitor(directory=str(table.directory)) as monitor, monitor.subscribe("deltas") as deltas:
        assert next(deltas).sequence == 5
        with pytest.raises(ttmem.Ended, match="killed"):
            next(deltas)
    server.close()


def test_track(table: HandMade, monitor: ttmem.Monitor, server: FakeServer) -> None:
    with ttmem.track(device=0, monitor=monitor) as m:
        assert m.increase == 4096
    assert (m.increase, m.peak, m.peak_growth, m.exact) == (4096, 12288, 8192, True)
    assert m.by_type["DRAM"].allocations == 3
    assert [buffer.unique_id for buffer in m.leaked] == [7]
    assert {"get": "buffers", "allocated_after_ns": 8} in server.requests
    with pytest.raises(ttmem.NoDevice, match="has no pool 'L1'"):
        _ = ttmem.track(type="L1", monitor=monitor).__enter__().increase
    with pytest.raises(ttmem.NoDevice, match="has not used chip 5"):
        _ = ttmem.track(device=5, monitor=monitor).__enter__().peak
    with pytest.raises(ttmem.TtmemError, match="in or after its `with` block"):
        _ = ttmem.track().peak


def test_the_error_of_a_block_comes_first(table: HandMade, monitor: ttmem.Monitor, server: FakeServer) -> None:
    with pytest.raises(KeyError), ttmem.track(monitor=monitor):
        raise KeyError("its own")


def test_deltas_until_the_end(monitor: ttmem.Monitor) -> None:
    with monitor.subscribe("deltas") as deltas:
        assert deltas.sequence == 4
        assert [(delta.sequence, delta.change) for delta in deltas] == [(5, "allocated"), (6, "freed")]


def test_the_end_stays_the_end(monitor: ttmem.Monitor) -> None:
    deltas = monitor.subscribe("deltas")
    assert len(list(deltas)) == 2
    assert list(deltas) == [] and next(deltas, None) is None
    deltas.close()
    left = monitor.subscribe("deltas")
    left.close()
    assert list(left) == [], "what had come, too"


@pytest.fixture
def silent(table: HandMade) -> Iterator[ttmem.Monitor]:
    """Of a ttmem that says nothing after it has accepted a subscription."""
    table.write()
    said = {"schema": "ttmem.subscribed/1", "sequence": 4}
    server = FakeServer(table.directory / f"{table.pid}.sock", lambda _: said)
    with ttmem.Monitor(directory=str(table.directory)) as monitor:
        yield monitor
    server.close()


def until_it_reads(thread: threading.Thread) -> None:
    """Waits until a thread is asleep in the kernel's code for sockets."""
    place = Path(f"/proc/self/task/{thread.native_id}/syscall")
    # `recvfrom`, of whatever machine.
    while place.read_text().split()[0] not in ("45", "207"):
        assert thread.is_alive()


def test_another_thread_may_close_it(silent: ttmem.Monitor) -> None:
    deltas = silent.subscribe("deltas")
    came: list[object] = []
    reading = threading.Thread(target=lambda: came.append(list(deltas)), daemon=True)
    reading.start()
    until_it_reads(reading)
    closing = threading.Thread(target=deltas.close, daemon=True)
    closing.start()
    closing.join(20)
    reading.join(20)
    assert came == [[]]
    connection = silent.connect()
    connection.close()
    with pytest.raises(ttmem.Ended, match="was closed, by close()"):
        connection.line()


def test_a_signal_handler_may_close_it(silent: ttmem.Monitor) -> None:
    deltas = silent.subscribe("deltas")
    before = signal.getsignal(signal.SIGALRM)
    in_a_moment(deltas.close)
    assert list(deltas) == []
    signal.signal(signal.SIGALRM, before)


def test_a_closed_monitor_says_so(monitor: ttmem.Monitor) -> None:
    monitor.sync()
    monitor.close()
    monitor.close()
    asks = (monitor.sync, monitor.devices, monitor.process, monitor.check, lambda: monitor.query_device(sync=False))
    for ask in asks:
        with pytest.raises(ttmem.TtmemError, match=r"was closed by close\(\): use a new Monitor"):
            ask()


def test_a_lost_connection_is_made_anew(table: HandMade) -> None:
    table.write()
    left = [1]

    def once(request: dict[str, object]) -> object:
        left[0] -= 1
        return answers(request) if left[0] >= 0 else None

    server = FakeServer(table.directory / f"{table.pid}.sock", once)  # type: ignore[arg-type]
    monitor = ttmem.Monitor(directory=str(table.directory))
    monitor.sync()
    with pytest.raises(ttmem.Ended, match="was closed: ttmem has ended"):
        monitor.sync()
    left[0] = 1
    monitor.sync()
    server.close()


class Interrupted(BaseException):
    """As a `KeyboardInterrupt`, which would end pytest if it came at a wrong time."""


def in_a_moment(do: Callable[[], object]) -> None:
    """Has a signal handler do something soon."""
    signal.signal(signal.SIGALRM, lambda *_: do())
    signal.setitimer(signal.ITIMER_REAL, 0.1)


def interrupt() -> None:
    raise Interrupted


@pytest.fixture
def slow(table: HandMade) -> Iterator[ttmem.Monitor]:
    """Of a ttmem that takes its time for what is asked slowly, and says in each answer what was asked."""

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.3 if request["get"] == "slowly" else 0)
        return {"schema": "ttmem.echo/1", "of": request["get"]}

    table.write()
    server = FakeServer(table.directory / f"{table.pid}.sock", answer)
    before = signal.getsignal(signal.SIGALRM)
    with ttmem.Monitor(directory=str(table.directory)) as monitor:
        yield monitor
    signal.signal(signal.SIGALRM, before)
    server.close()


def test_the_answer_to_what_was_interrupted_is_no_other_requests(slow: ttmem.Monitor) -> None:
    assert slow.ask(get="first")["of"] == "first"
    in_a_moment(interrupt)
    with pytest.raises(Interrupted):
        slow.ask(get="slowly")
    assert [slow.ask(get=what)["of"] for what in ("second", "third")] == ["second", "third"]


def test_a_connection_of_its_own_is_closed_by_an_interrupt(slow: ttmem.Monitor) -> None:
    with slow.connect() as connection:
        in_a_moment(interrupt)
        with pytest.raises(Interrupted):
            connection.ask(get="slowly")
        with pytest.raises(ttmem.Ended, match="was interrupted"):
            connection.ask(get="second")


def test_a_signal_handler_may_ask(slow: ttmem.Monitor) -> None:
    heard = []
    in_a_moment(lambda: heard.append(slow.ask(get="by the handler")["of"]))
    assert slow.ask(get="slowly")["of"] == "slowly"
    assert heard == ["by the handler"]
    assert slow.ask(get="second")["of"] == "second"


@pytest.mark.parametrize("said", [b"nonsense\n", b"[]\n", b'{"schema":7}\n'])
def test_a_stranger_is_refused(table: HandMade, said: bytes) -> None:
    import socket

    table.write()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(table.directory / f"{table.pid}.sock"))
    listener.listen()

    def speak() -> None:
        client, _ = listener.accept()
        client.recv(100)
        client.sendall(said)

    threading.Thread(target=speak, daemon=True).start()
    with pytest.raises(ttmem.Broken, match="does not speak"):
        ttmem.Monitor(directory=str(table.directory)).sync()
    listener.close()


def test_no_socket_and_a_planted_one(table: HandMade) -> None:
    table.write()
    monitor = ttmem.Monitor(directory=str(table.directory))
    with pytest.raises(ttmem.NotWatched, match="sock is not there"):
        monitor.sync()
    sock = table.directory / f"{table.pid}.sock"
    sock.write_text("a file")
    with pytest.raises(ttmem.Broken, match="is refused"):
        monitor.sync()
    sock.unlink()
    if os.geteuid() == 0:
        server = FakeServer(sock, answers)
        os.chown(sock, 12345, -1)
        with pytest.raises(ttmem.Broken, match="is refused"):
            monitor.sync()
        server.close()


def test_long_paths(tmp_path: Path) -> None:
    directory = tmp_path / ("x" * 150)
    directory.mkdir()
    table = HandMade(directory)
    table.write()
    here = os.getcwd()
    os.chdir(directory)
    try:
        server = FakeServer(Path(f"{table.pid}.sock"), answers)
    finally:
        os.chdir(here)
    ttmem.Monitor(directory=str(directory)).sync()
    server.close()
