"""Processes that tests start. All have one generous limit, after which they are killed with everything that they started."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
LIMIT = 600  # seconds, also on a machine that does much else
_started: list[subprocess.Popen] = []  # and not yet waited for


def environment(**changes: str | None) -> dict[str, str]:
    """Returns the environment of a process with one device that imports this package; None takes a variable away."""
    flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1")
    changed = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags, **changes}
    return {name: value for name, value in changed.items() if value is not None}


def free_port() -> int:
    """Finds a port that no other process listens on."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def start(command: Sequence[Any], cwd: pathlib.Path = ROOT, env: dict[str, str] | None = None) -> subprocess.Popen:
    """Starts a process in a group of its own, with one device or in that environment. Call `finish` to end it."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        list(map(str, command)), env=env or environment(), cwd=cwd, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe,
        text=True, start_new_session=True,
    )  # fmt: skip
    _started.append(process)
    return process


def finish(*running: subprocess.Popen) -> list[subprocess.CompletedProcess]:
    """Waits until all have ended, and returns their exit codes and outputs.

    Raises:
      TimeoutExpired: one takes longer than the limit. All are killed.
    """
    deadline = time.monotonic() + LIMIT
    try:
        outputs = [process.communicate(timeout=max(deadline - time.monotonic(), 0)) for process in running]
    finally:
        stop(*running)
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *both)
        for process, both in zip(running, outputs, strict=True)
    ]


def run(command: Sequence[Any], cwd: pathlib.Path = ROOT, env: dict[str, str] | None = None):
    """Starts a process and waits until it ends; returns its exit code and output."""
    (ended,) = finish(start(command, cwd, env))
    return ended


def run_code(code: str, *arguments: Any, cwd: pathlib.Path = ROOT, env: dict[str, str] | None = None):
    """Runs a Python program in a process of its own."""
    return run([sys.executable, "-c", code, *arguments], cwd, env)


def printed_by(code: str, *arguments: Any, cwd: pathlib.Path = ROOT) -> str:
    """Runs a Python program that must succeed and say nothing on stderr; returns what it printed."""
    ended = run_code(code, *arguments, cwd=cwd)
    assert (ended.returncode, ended.stderr) == (0, ""), ended
    return ended.stdout


def stop(*processes: subprocess.Popen) -> None:
    """Kills what still runs of these processes' groups, and waits for it."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):  # all have ended
            os.killpg(process.pid, signal.SIGKILL)
    for process in processes:
        with process:  # waits, and closes its pipes
            pass
        if process in _started:
            _started.remove(process)


def stop_all() -> None:
    """Kills what a test has started and did not finish."""
    stop(*_started)


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
            raise AssertionError(f"{'waited too long for' if is_late else 'ended too early:'} {finish(*running)}")
        time.sleep(0.01)
