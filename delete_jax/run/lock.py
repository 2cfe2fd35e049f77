"""One process at a time in a run's folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on this system
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder for this process; a process that dies lets go of it. Nothing is written.

    Raises:
      ValueError: another process holds it; the message names that one where the system tells.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = _holder(os.fstat(descriptor).st_ino)
            raise ValueError(f"{who} is running in {folder}: wait until it ends, or choose another --workdir") from None
        except OSError:  # a network file system without locks
            pass
        yield
    finally:
        os.close(descriptor)


def _holder(inode: int) -> str:
    """Who holds the lock on an inode, as Linux tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if "FLOCK" in fields and fields[5].endswith(f":{inode}"):
                return f"process {fields[4]}"
    return "another process"
