"""The pytest plugin, against a server that answers from a script."""

from __future__ import annotations

import pytest
from conftest import FakeServer, HandMade, answers_after_a_loss

MARKED = """
import pytest

@pytest.mark.ttmem_limit(dram="{limit}")
def test_limited():
    pass

@pytest.mark.ttmem_no_leaks{allow}
def test_tidy():
    pass

def test_asks(ttmem):
    assert ttmem.query_device(0).dram.used == 4096

def test_unmarked():
    pass
"""


def run(pytester: pytest.Pytester, table: HandMade, *options: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess(f"--ttmem-table-dir={table.directory}", "-p", "no:cacheprovider", *options)


def test_limits_and_leaks_fail(pytester: pytest.Pytester, table: HandMade, server: FakeServer) -> None:
    pytester.makepyfile(MARKED.format(limit="8 KiB", allow=""))
    result = run(pytester, table)
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*chip 0: DRAM peaked at 12.0 KiB (12288 bytes), 4.0 KiB over the limit of 8 KiB",
            "*1 buffers (2.0 KiB) were allocated in the test and are still live:",
            "*DRAM 2.0 KiB at 0x1000 on chips 0, for ttnn::zeros",
        ]
    )


def test_within_limits_all_pass(pytester: pytest.Pytester, table: HandMade, server: FakeServer) -> None:
    pytester.makepyfile(MARKED.format(limit="80%", allow='(allow="2 KiB")'))
    result = run(pytester, table, "--ttmem", "--strict-markers")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*ttmem: the heaviest tests*", "*12.0 KiB *8.0 KiB *– *test_limited"])


def test_the_heaviest_may_have_failed(pytester: pytest.Pytester, table: HandMade, server: FakeServer) -> None:
    pytester.makepyfile(
        """
        import pytest

        def test_out_of_memory():
            raise RuntimeError("Out of Memory")

        def test_skipped():
            pytest.skip("not here")
        """
    )
    result = run(pytester, table, "--ttmem")
    result.assert_outcomes(failed=1, skipped=1)
    result.stdout.fnmatch_lines(["*ttmem: the heaviest tests*", "*12.0 KiB *8.0 KiB *test_out_of_memory"])
    assert "test_skipped" not in result.stdout.str().split("the heaviest tests")[1]


#: Each worker is a process of its own, and only the one that runs these tests is watched.
ONE_FOR_ALL = """
import ttmem
from ttmem import pytest_plugin

pytest_plugin.Monitor = lambda directory: ttmem.Monitor({pid}, directory)
"""


def test_the_workers_of_xdist_are_listed(pytester: pytest.Pytester, table: HandMade, server: FakeServer) -> None:
    pytest.importorskip("xdist")
    pytester.makeconftest(ONE_FOR_ALL.format(pid=table.pid))
    for name in ("one", "two"):
        pytester.makepyfile(**{f"test_{name}": f"def test_{name}(): pass"})
    result = run(pytester, table, "--ttmem", "-n", "2", "--dist", "loadfile")
    result.assert_outcomes(passed=2)
    for name in ("one", "two"):
        result.stdout.fnmatch_lines(["*ttmem: the heaviest tests*", f"*12.0 KiB *8.0 KiB *::test_{name}"])


def test_what_workers_of_xdist_did_not_measure_is_told(pytester: pytest.Pytester, table: HandMade) -> None:
    pytest.importorskip("xdist")
    pytester.makepyfile(
        """
        import os

        def test_one():
            pass

        def test_crash():
            os._exit(1)
        """
    )
    result = run(pytester, table, "--ttmem", "-n", "1")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*1 workers have crashed: what they measured is not listed"])
    pytester.makepyfile("def test_one(): pass")
    run(pytester, table, "--ttmem", "-n", "1").stdout.fnmatch_lines(["1 tests were not measured: ttmem: no table*"])


def test_after_a_loss_in_the_test_it_cannot_be_judged(pytester: pytest.Pytester, table: HandMade) -> None:
    table.write()
    server = FakeServer(table.directory / f"{table.pid}.sock", answers_after_a_loss)
    pytester.makepyfile(MARKED.format(limit="1 MiB", allow='(allow="1 MiB")'))
    result = run(pytester, table)
    result.assert_outcomes(passed=2, failed=2)
    told = "*ttmem: the test cannot be judged, the numbers are not exact: records lost: 2"
    result.stdout.fnmatch_lines([told, told])
    pytester.makepyfile("def test_one(): pass")
    run(pytester, table, "--ttmem").stdout.fnmatch_lines(["*12.0 KiB *::test_one (not exact)"])
    server.close()


def test_unmarked_tests_are_left_alone(pytester: pytest.Pytester, table: HandMade, server: FakeServer) -> None:
    pytester.makepyfile("def test_one(): pass")
    run(pytester, table).assert_outcomes(passed=1)
    assert server.requests == []


def test_nobody_watches(pytester: pytest.Pytester, table: HandMade) -> None:
    pytester.makepyfile(MARKED.format(limit="8 KiB", allow=""))
    result = run(pytester, table, "--ttmem")
    result.assert_outcomes(passed=1, failed=2, errors=1)
    result.stdout.fnmatch_lines(
        ["*no table of process * start `sudo ttmem attach --headless --pid *`pytest --ttmem-attach` start it", "*1 tests were not measured: *"]
    )


def test_a_wrong_mark_is_refused(pytester: pytest.Pytester, table: HandMade) -> None:
    pytester.makepyfile(MARKED.format(limit="8 KoB", allow=""))
    result = run(pytester, table)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_limited: '8 KoB' is no size*"])


def test_its_own_failure_comes_first(pytester: pytest.Pytester, table: HandMade, server: FakeServer) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.ttmem_limit(dram=1)
        def test_broken():
            assert 1 == 2
        """
    )
    result = run(pytester, table)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*assert 1 == 2*"])
    assert "peaked" not in result.stdout.str()
