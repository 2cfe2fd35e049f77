"""Processes that tests start: one generous limit for all of them, after which they are killed. None is left behind."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
LIMIT = 600  # seconds, also on a machine that does much else


def environment() -> dict[str, str]:
    """For a process with one device."""
    flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1")
    return os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": flags}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def start(command: Sequence[Any], cwd: pathlib.Path = ROOT, env: dict[str, str] | None = None) -> subprocess.Popen:
    """Starts a process with one device, or in that environment; `finish` ends it."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        list(map(str, command)), env=env or environment(), cwd=cwd, stdout=pipe, stderr=pipe, text=True
    )


def finish(*running: subprocess.Popen) -> list[subprocess.CompletedProcess]:
    """Waits until all have ended, and returns what they said.

    Raises:
      TimeoutExpired: one takes longer than the limit. All are killed.
    """
    deadline = time.monotonic() + LIMIT
    try:
        said = [process.communicate(timeout=max(deadline - time.monotonic(), 0)) for process in running]
    finally:
        stop(running)
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *both)
        for process, both in zip(running, said, strict=True)
    ]


def stop(running: Sequence[subprocess.Popen]) -> None:
    """Kills what still runs, and waits for it."""
    for process in running:
        process.kill()
    for process in running:
        with process:  # closes its pipes
            pass


def wait_until(condition: Callable[[], bool], *running: subprocess.Popen) -> None:
    """Waits until a condition holds.

    Raises:
      AssertionError: a process has ended before, or the limit is over. All are killed.
    """
    deadline = time.monotonic() + LIMIT
    while not condition():
        is_late = time.monotonic() > deadline
        if is_late or any(process.poll() is not None for process in running):
            for process in running:
                process.kill()
            ended = [(process.returncode, *process.communicate()) for process in running]
            raise AssertionError(f"{'waited too long for' if is_late else 'ended too early:'} {ended}")
        time.sleep(0.01)
