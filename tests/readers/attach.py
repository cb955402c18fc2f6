"""Starts a ttmem on itself by `sudo`, as a user other than root, and ends it: UID TTMEM LIBRARY DIRECTORY."""

from __future__ import annotations

import ctypes
import os
import sys

from ttmem._agent import Agent


def main() -> None:
    """Says when it is watched, and how that ttmem has ended."""
    user, binary, library, directory = sys.argv[1:]
    # With this it is a process that has tt-metal.
    ctypes.CDLL(library)
    os.setgroups([])
    os.setgid(int(user))
    os.setuid(int(user))
    agent = Agent(binary, directory)
    print(f"chips {agent.wait().devices()}", flush=True)
    try:
        os.kill(agent._process.pid, 0)
    except PermissionError:
        print("it is root's", flush=True)
    agent.end()
    print(f"ended with {agent._process.returncode}", flush=True)


main()
