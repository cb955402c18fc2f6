"""The ttmem that a test run starts: how it is ended, and what is told where it does not attach."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest
import ttmem
from conftest import HandMade
from ttmem import _agent, pytest_plugin
from ttmem._agent import Agent

#: A ttmem that notices nothing but that its output is not taken any more, as one that is root's.
DEAF = """#!{python}
import os, sys, time
sys.stderr.write("something to tell\\n")
sys.stderr.flush()
try:
    while True:
        os.write(1, b"a table\\n" * 100)
        time.sleep(0.01)
except BrokenPipeError:
    pass
"""
BROKEN = "#!/bin/sh\necho 'no rights: use sudo' >&2\nexit 1\n"
MUTE = "#!/bin/sh\nexec sleep 1000\n"


def program(folder: Path, text: str, name: str = "a-ttmem") -> str:
    file = folder / name
    file.write_text(text.replace("{python}", sys.executable))
    file.chmod(0o755)
    return str(file)


@pytest.fixture(autouse=True)
def sudo(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `sudo` that just does it, if it is asked for no password."""
    folder = tmp_path_factory.mktemp("bin")
    program(folder, '#!/bin/sh\n[ "$1" = -n ] && shift && exec "$@"\n', "sudo")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


class NotOurs(subprocess.Popen):  # type: ignore[type-arg]
    """A process of root's, to an unprivileged caller."""

    def send_signal(self, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")


@pytest.fixture
def not_ours(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[NotOurs]]:
    """Each process that is started is root's; those that were."""
    started: list[NotOurs] = []

    def start(*arguments: Any, **more: Any) -> NotOurs:
        started.append(NotOurs(*arguments, **more))
        return started[-1]

    monkeypatch.setattr(_agent.subprocess, "Popen", start)
    yield started
    for process in started:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()


def test_it_ends_where_it_may_not_be_signalled(table: HandMade, tmp_path: Path, not_ours: list[NotOurs]) -> None:
    table.write()
    agent = Agent(program(tmp_path, DEAF), str(table.directory))
    agent.wait().close()
    agent.end()
    assert not_ours[0].returncode == 0
    assert agent._log.closed
    agent.end()


def test_one_that_cannot_be_ended_is_left(
    tmp_path: Path, not_ours: list[NotOurs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_agent, "PATIENCE_AT_END", 0.01)
    agent = Agent(program(tmp_path, MUTE), str(tmp_path))
    agent.end()
    assert not_ours[0].poll() is None
    assert agent._log.closed


def test_what_it_said_is_told_if_it_does_not_attach(
    tmp_path: Path, not_ours: list[NotOurs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_agent, "PATIENCE", 0.0)
    agent = Agent(program(tmp_path, DEAF), str(tmp_path / "none"))
    while not agent._last_words():
        assert not_ours[0].poll() is None
    with pytest.raises(ttmem.TtmemError, match="does not watch this process .*; it said: something to tell"):
        agent.wait()
    assert not_ours[0].returncode == 0, "and it is ended"


def test_the_directory_of_the_environment_is_passed_on(
    tmp_path: Path, not_ours: list[NotOurs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTMEM_TABLE_DIR", str(tmp_path))
    agent = Agent(program(tmp_path, DEAF))
    agent.end()
    assert not_ours[0].args[-2:] == ["--table-dir", str(tmp_path)]


SUITE = """
import pytest

@pytest.mark.ttmem_limit(dram="1 GiB")
def test_one():
    pass

@pytest.mark.ttmem_no_leaks
def test_two():
    pass
"""


@pytest.mark.parametrize(
    ("text", "why"), [(BROKEN, "has ended: no rights: use sudo"), (MUTE, "does not watch this process after 0 s: *")]
)
def test_it_is_started_once_and_each_test_told_why_not(
    text: str, why: str, pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pytest_plugin, "has_library", lambda: True)
    if text == MUTE:
        monkeypatch.setattr(_agent, "PATIENCE", 0.0)
    starts: list[Agent] = []
    monkeypatch.setattr(pytest_plugin, "Agent", lambda *options: starts.append(Agent(*options)) or starts[-1])
    pytester.makepyfile(SUITE)
    binary = program(tmp_path, text)
    options = ["--ttmem-attach", f"--ttmem-binary={binary}", f"--ttmem-table-dir={tmp_path}"]
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", *options)
    result.assert_outcomes(failed=2)
    told = f"*ttmem: `*--table-dir *` {why}"
    result.stdout.fnmatch_lines([told, told])
    assert len(starts) == 1
