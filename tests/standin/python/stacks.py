"""Allocates on the stand-in by ctypes in many ways, and tells by which Python functions.

    stacks.py LIBRARY

At each checkpoint it writes one JSON line, and waits for a line on standard input before it goes on:

    {"checkpoint": NAME, "made": [{"how": WORDS, "address": N, "stack": [[FILE, LINE, FUNCTION], ...]}, ...]}

The innermost function comes first, as with ttmem. At `start` no mesh is open, at `stacks` everything
has been made, at `end` it has been given back. It runs on Python 3.8 and later, with nothing else.

Whoever asks for the stack is on the same line as the allocation, for the line is compared.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import gc
import importlib
import json
import os
import sys
import tempfile
import threading
from types import CodeType, FrameType
from typing import Any, AsyncIterator, Callable, Dict, Iterator, List, Optional, Tuple

Stack = List[Tuple[str, int, str]]

DEEP = 90
# Later versions put other instructions in the place of those that have run often.
OFTEN = 40

# Code stays until it has been read: some of it would be gone once it has run.
CODES: Dict[int, CodeType] = {}


def here() -> Stack:
    """The functions that are being executed, but for this one."""
    frame: Any = sys._getframe(1)
    stack = []
    while frame is not None:
        code = frame.f_code
        CODES[id(code)] = code
        stack.append((code.co_filename, frame.f_lineno, getattr(code, "co_qualname", code.co_name)))
        frame = frame.f_back
    return stack


class Run:
    """What has been made, and by whom; or what would be, if it is only to run."""

    def __init__(self, path: str) -> None:
        # The one lets go of the interpreter's lock, the other keeps it.
        self.libraries = {"CDLL": ctypes.CDLL(path), "PyDLL": ctypes.PyDLL(path)}
        for library in self.libraries.values():
            library.standin_allocate.restype = ctypes.c_uint64
            library.standin_allocate_in_thread.restype = ctypes.c_uint64
            library.standin_free.argtypes = [ctypes.c_uint64]
        self.made: List[Tuple[str, int, Stack]] = []
        self.pass_name = ""
        self.allocate: Callable[[], int] = int
        self.here: Callable[[], Stack] = list

    def only_run(self) -> None:
        """From now on nothing is allocated."""
        self.pass_name, self.allocate, self.here = "", int, list

    def use(self, name: str, kind: str) -> None:
        """From now on it is, by that library."""
        self.pass_name = f"{name}, {kind}"
        self.allocate, self.here = self.libraries[kind].standin_allocate, here

    def keep(self, how: str, address: int, stack: Stack) -> None:
        """One buffer."""
        if self.pass_name:
            self.made.append((f"{how} ({self.pass_name})", address, stack))

    def make(self, how: str) -> None:
        """Makes one buffer."""
        self.keep(how, self.allocate(), self.here())

    def in_native_threads(self) -> None:
        """One buffer by a thread that is not Python's, and one by a function that such a thread calls."""
        library = self.libraries["CDLL"]
        if self.pass_name:
            self.keep("native thread", library.standin_allocate_in_thread(), [])
        back = ctypes.CFUNCTYPE(None)(lambda: self.make("called by a native thread"))
        library.standin_call_in_thread(back)


def calls_itself(run: Run, depth: int) -> None:
    """A function that calls itself."""
    if depth == 0:
        run.make("deep")
    else:
        calls_itself(run, depth - 1)


def calls_itself_by_c(run: Run, depth: int) -> None:
    """The same through C each time."""
    if depth == 0:
        run.make("deep by C")
    else:
        list(map(functools.partial(calls_itself_by_c, run), [depth - 1]))


def nested(run: Run) -> None:
    """Functions in each other."""

    def outer() -> None:
        def inner() -> None:
            run.keep("nested", run.allocate(), run.here())

        inner()

    outer()


def yields(run: Run) -> Iterator[int]:
    """A generator, which has a frame while it is asked."""
    for number in range(2):
        run.keep("generator", run.allocate(), run.here())
        yield number


def yields_from(run: Run) -> Iterator[int]:
    """One that asks another."""
    yield from yields(run)


def is_closed(run: Run) -> Iterator[int]:
    """One that is not asked to its end."""
    try:
        yield 1
    finally:
        run.make("generator's end")


class Größe:
    """A name that is not plain, and methods that are called by other things than calls."""

    def __init__(self, run: Run) -> None:
        self.run = run
        run.keep("init", run.allocate(), run.here())

    @property
    def width(self) -> int:
        self.run.make("property")
        return 1

    def __getitem__(self, number: int) -> int:
        self.run.make("subscript")
        return number

    def __add__(self, other: int) -> int:
        self.run.make("sum")
        return other

    def __getattr__(self, name: str) -> str:
        self.run.make("attribute")
        return name

    def __enter__(self) -> int:
        self.run.make("enter")
        return 1

    def __exit__(self, *reason: object) -> None:
        self.run.make("exit")


def by_methods(run: Run) -> None:
    """By an object."""
    made = Größe(run)
    with made as entered:
        _ = made.width + made[entered] + (made + 1)
    made.other  # noqa: B018


class Subclass(Größe):
    """By another's method."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)


def raises(run: Run) -> None:
    """While there is an exception."""
    try:
        raise ValueError
    except ValueError:
        run.make("handler")
    finally:
        run.make("finally")


def sorts(run: Run) -> None:
    """From Python through C to Python."""

    def key(number: int) -> int:
        run.keep("sort key", run.allocate(), run.here())
        return number

    sorted([2, 1], key=key)


def calls_back(run: Run) -> None:
    """The same through a C function that knows nothing of Python."""
    for library in run.libraries.values():
        library.standin_call(ctypes.CFUNCTYPE(None)(lambda: run.make("called back")))


FAR = "def far(run):\n    if run is None:\n" + "\n" * 300 + "        pass\n" + "\n" * 300 + "    run.make('far')\n"


@functools.lru_cache(maxsize=None)
def compiled(code: str, name: str) -> Any:
    """Code that is made at run time; once, so that it can run often."""
    scope: Any = {}
    exec(compile(code, name, "exec"), scope)
    return scope


def late(run: Run) -> None:
    """Code that is made at run time, and with names and lines of all kinds."""
    exec(compile("\n\nrun.make('exec')\n", "<made late>", "exec"), {"run": run})
    eval("[run.make('eval'), 1]", {"run": run})
    compiled(FAR, "/größe/far.py")["far"](run)
    compiled("def \U00010330(run): run.make('beyond 16 bits')\n", "/\u03a9.py")["\U00010330"](run)


def imports(run: Run, folder: str) -> None:
    """A module that allocates as it is imported."""
    sys.modules.pop("made_by_import", None)
    globals()["for_import"] = run
    if folder not in sys.path:
        sys.path.insert(0, folder)
        with open(os.path.join(folder, "made_by_import.py"), "w") as module:
            module.write("import __main__\n\n__main__.for_import.make('import')\n")
        importlib.invalidate_caches()
    import made_by_import  # noqa: F401


def in_a_thread(work: Callable[[], None]) -> None:
    """Does it in a thread of its own, beside others."""
    waits = [threading.Event() for _ in range(3)]
    others = [threading.Thread(target=wait.wait) for wait in waits]
    own = threading.Thread(target=work)
    for thread in (*others[:2], own, *others[2:]):
        thread.start()
    own.join()
    for wait, thread in zip(waits, others):
        wait.set()
        thread.join()


def wrapped(function: Callable[..., None]) -> Callable[..., None]:
    """A decorator."""

    @functools.wraps(function)
    def wrapper(run: Run, *rest: object, **named: object) -> None:
        run.keep("wrapper", run.allocate(), run.here())
        function(run, *rest, **named)

    return wrapper


@wrapped
def decorated(run: Run, *rest: object, **named: object) -> None:
    """What it is put around."""
    run.make("decorated")


def comprehends(run: Run) -> None:
    """Functions without a name of their own."""
    by_lambda = lambda: run.keep("lambda", run.allocate(), run.here())  # noqa: E731
    by_lambda()
    [run.keep("comprehension", run.allocate(), run.here()) for _ in range(2)]
    {number: run.make("dict comprehension") for number in range(1)}
    list(run.make("generator expression") for _ in range(1))
    run.keep(
        "several lines",
        run.allocate(), run.here(),
    )


async def awaited(run: Run, depth: int) -> None:
    """One that another waits for, after others have had their turn."""
    if depth:
        await awaited(run, depth - 1)
    else:
        await asyncio.sleep(0)
        run.keep("async", run.allocate(), run.here())


async def asked(run: Run) -> AsyncIterator[int]:
    """A generator that may wait."""
    run.make("async generator")
    yield 1


async def waits(run: Run) -> None:
    """All of these."""
    await awaited(run, 3)
    await asyncio.gather(awaited(run, 0), asyncio.ensure_future(awaited(run, 1)))
    async for _ in asked(run):
        run.make("async for")
    [number async for number in asked(run)]


def traced(run: Run) -> None:
    """A function that is traced, and what traces it."""

    def watched() -> None:
        run.keep("traced", run.allocate(), run.here())
        for _ in range(1):
            run.make("traced loop")

    def tracer(frame: FrameType, event: str, argument: object) -> Optional[Callable[..., Any]]:
        if frame.f_code is not watched.__code__:
            return None
        run.make(f"tracer at {event}")
        return tracer

    sys.settrace(tracer)
    watched()
    sys.settrace(None)


def profiled(run: Run) -> None:
    """What is told of calls alone."""

    def watched() -> None:
        run.make("profiled")

    def profiler(frame: FrameType, event: str, argument: object) -> None:
        if frame.f_code is watched.__code__:
            run.make(f"profiler at {event}")

    sys.setprofile(profiler)
    watched()
    sys.setprofile(None)


class Finalized:
    """What allocates as it goes."""

    def __init__(self, run: Run, how: str) -> None:
        self.run, self.how = run, how

    def __del__(self) -> None:
        self.run.keep(self.how, self.run.allocate(), self.run.here())


def finalizes(run: Run) -> None:
    """By the last reference, wherever that is lost, and by the collector."""

    def returns(number: int) -> int:
        local = Finalized(run, "finalizer at return")
        return number if local else 0

    def fails() -> None:
        local = Finalized(run, "finalizer behind a handler")
        raise ValueError(bool(local))

    last = Finalized(run, "finalizer")
    del last
    returns(1)
    list(map(returns, [1]))
    try:
        fails()
    except ValueError:
        pass
    unfinished = is_closed(run)
    next(unfinished)
    del unfinished
    ring: Any = Finalized(run, "collected")
    ring.ring = ring
    del ring
    gc.collect()


def everything(run: Run, folder: str) -> None:
    """All kinds."""
    run.keep("plain", run.allocate(), run.here())
    run.make("call")
    nested(run)
    calls_itself(run, 5)
    calls_itself(run, DEEP)
    calls_itself_by_c(run, 5)
    calls_itself_by_c(run, DEEP)
    list(yields(run))
    for _ in yields_from(run):
        pass
    left = is_closed(run)
    next(left)
    left.close()
    by_methods(run)
    Subclass(run)
    raises(run)
    sorts(run)
    calls_back(run)
    late(run)
    imports(run, folder)
    in_a_thread(lambda: run.make("thread"))
    in_a_thread(lambda: calls_itself(run, 3))
    run.in_native_threads()
    decorated(run, 1, named=2)
    comprehends(run)
    asyncio.run(waits(run))
    traced(run)
    profiled(run)
    finalizes(run)


def main() -> None:
    """Makes all kinds."""
    # Only what is collected is told of, and only where that is asked for.
    gc.disable()
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    run = Run(sys.argv[1])

    def checkpoint(name: str) -> None:
        made = [dict(zip(("how", "address", "stack"), made)) for made in run.made]
        channel.write(json.dumps({"checkpoint": name, "made": made}) + "\n")
        channel.flush()
        sys.stdin.readline()

    checkpoint("start")
    library = run.libraries["CDLL"]
    assert library.standin_open()
    with tempfile.TemporaryDirectory() as folder:
        for kind in run.libraries:
            run.use("first", kind)
            everything(run, folder)
        run.only_run()
        for _ in range(OFTEN):
            everything(run, folder)
        for kind in run.libraries:
            run.use("often", kind)
            everything(run, folder)
    assert all(address for _, address, _ in run.made)
    checkpoint("stacks")
    for _, address, _ in run.made:
        assert library.standin_free(address)
    run.made.clear()
    assert library.standin_close()
    checkpoint("end")


if __name__ == "__main__":
    main()
