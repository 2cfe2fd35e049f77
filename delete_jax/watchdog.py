"""One of several processes of a run, watched by a process of its own: however it ends, one line says so.

If a process dies, `jax.distributed` ends the others, some with an exception and some by aborting them amid a trace of C++.
Neither can be caught everywhere in the process that it strikes.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

WATCHED = "DELETE_JAX_WATCHED"
REFUSED, FAILED, AGAIN, INTERRUPTED = 2, 1, 75, 130
GRACE_SECONDS = 10
LOST = re.compile(
    r"JAX distributed service|coordination[_ ]service|CoordinationService|\bGloo\b|\bNCCL\b|DEADLINE_EXCEEDED"
)
"""What the errors say that JAX raises where another process is gone or does not come."""


def watched(main: Callable[[], int | None], logs: str | os.PathLike) -> int:
    """Calls `main` in a second process, and returns the exit code for this one: `sys.exit(watched(main, FOLDER))`.

    The second process runs the same command. It ends when this one does, however that happens. What it writes to stderr goes to
    a file in `logs`, which is removed at the end unless JAX or a bug ended the process. In place of it, stderr gets one line if
    another process of the run was lost or this one was killed.

    Args:
      main: what to do. It calls `jax.distributed.initialize` and, at its end, `jax.distributed.shutdown`. A ValueError or OSError
        that it raises is shown as one line.
      logs: a folder, made if it is not there.

    Returns:
      What `main` returned; 0 for None. 2: it raised a ValueError or OSError. 75: another process was lost, or this one was killed;
      the same command may be run again. 130: interrupted. 1: another exception, which is shown with its traceback.

    Raises:
      ValueError: `main` is no function, or `logs` no path.
    """
    if not callable(main) or not isinstance(logs, (str, os.PathLike)):  # nothing of the package is imported here
        raise ValueError(f"give a function and the path of a folder, got {main!r:.60} and {logs!r:.60}")
    if os.environ.get(WATCHED) == str(os.getppid()):
        _work(main)
    name = Path(sys.argv[0]).name
    path = Path(logs) / f"{socket.gethostname()}-{os.getpid()}.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # of an earlier process with this number
        with path.open("xb") as errors:
            code = _run(errors)
        said = path.read_text(errors="replace")
    except OSError as error:
        print(f"{name}: {path} cannot be written: {error.strerror or error}", file=sys.stderr)
        return REFUSED
    end = None
    if code == INTERRUPTED:
        end = "interrupted; the same command resumes"
    elif code < 0 and not LOST.search(said):
        end, code = f"this process was ended by {signal.Signals(-code).name}; the same command resumes", AGAIN
    elif code not in (0, REFUSED) and LOST.search(said):
        end, code = "another process of this run has ended or cannot be reached; the same command resumes", AGAIN
    if end is None:
        sys.stderr.write(said)
    else:
        print(f"{name}: {end}{f' (details: {path})' if said else ''}", file=sys.stderr)
    if end is None or not said:
        path.unlink()
    return code


def _run(errors) -> int:
    """The exit code of the second process; minus the number of the signal that ended it."""
    environment = os.environ | {WATCHED: str(os.getpid())}
    command = [sys.executable, *sys.orig_argv[1:]]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stderr=errors) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.kill()  # it may be waiting for the others, where it hears nothing
            return INTERRUPTED


def _work(main: Callable[[], int | None]) -> None:
    """Ends this process: at once where it failed, for a proper exit would wait for the others, which wait for it."""
    threading.Thread(target=_end_with_the_other, daemon=True).start()
    try:
        code = main() or 0
    except BaseException as error:
        code = _say(error)
        sys.stdout.flush()
        sys.stderr.flush()
        if code == REFUSED:
            _leave_together()
        os._exit(code)
    sys.exit(code)


def _leave_together() -> None:
    """Gives the others a while to find the same fault in the same arguments: without this process they would be ended first."""
    leaving = threading.Thread(target=_shut_down, daemon=True)
    leaving.start()
    leaving.join(GRACE_SECONDS)


def _shut_down() -> None:
    import jax

    with contextlib.suppress(RuntimeError):  # it was never initialised, or the others are gone
        jax.distributed.shutdown()


def _say(error: BaseException) -> int:
    if isinstance(error, SystemExit):  # of argparse, which has said why
        return error.code if isinstance(error.code, int) else FAILED
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    text = " ".join(str(error).split())
    if isinstance(error, (ValueError, OSError)) and not LOST.search(text):
        print(f"{Path(sys.argv[0]).name}: error: {text}", file=sys.stderr)
        return REFUSED
    traceback.print_exception(error)
    return FAILED


def _end_with_the_other() -> None:
    os.read(0, 1)  # stdin; returns when the process that holds the other end is gone
    os._exit(FAILED)
