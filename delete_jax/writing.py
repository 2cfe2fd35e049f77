"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # not on this system
    fcntl = None  # type: ignore[assignment]

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK)
"""What a file system answers that has no hard links."""


def temporary(path: Path) -> Path:
    """Makes up a name beside `path` that is free, and that nobody can foresee."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def is_temporary(found: Path, path: Path) -> bool:
    """Whether that is a name that `temporary(path)` may have given."""
    return re.fullmatch(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}\.tmp", found.name) is not None


@contextlib.contextmanager
def writing(path: Path, replace: bool = True) -> Iterator[BinaryIO]:
    """Opens a new file to write to, which gets the name `path` when the context ends without an error.

    Until then it has a name of its own beside `path`. No link is followed, and its permissions are those that the umask leaves. What
    killed processes left of earlier attempts is removed.

    Args:
      path: of the file, in a folder that is there.
      replace: a file that has the name is replaced; otherwise it is kept, also where it has come meanwhile.

    Raises:
      FileExistsError: something has the name, and `replace` is False.
      OSError: the file cannot be written.

    Examples:
      >>> import pathlib, tempfile
      >>> path = pathlib.Path(tempfile.mkdtemp(), "a.txt")
      >>> with writing(path) as file:
      ...     _ = file.write(b"whole")
      >>> path.read_text()
      'whole'
    """
    _remove_leftovers(path)
    file = _create(path)
    written = Path(file.name)
    try:
        with file:
            yield file
            _sync(file)
            # It is renamed while it is locked: another process would take it for a leftover.
            os.replace(written, path) if replace else _link(written, path)
    finally:
        written.unlink(missing_ok=True)


@contextlib.contextmanager
def making(folder: Path) -> Iterator[None]:
    """Makes a folder and those above it; those that it made, and that are empty, go again if the context ends with an error.

    Raises:
      OSError: it cannot be made, or something else has its name.
    """
    made: list[Path] = []
    try:
        for part in reversed([part for part in (folder, *folder.parents) if not part.exists()]):
            with contextlib.suppress(FileExistsError):  # another process made it meanwhile
                part.mkdir()
                made.append(part)
        folder.mkdir(exist_ok=True)
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # the first that has something in it ends this
            for part in reversed(made):
                part.rmdir()
        raise


def write_all(content: Mapping[Path, bytes]) -> None:
    """Writes files, all of them or none; each gets its name when all are written, in this order.

    Raises:
      OSError: one of them cannot be written.
    """
    with contextlib.ExitStack() as stack:  # which leaves the last first
        files = {path: stack.enter_context(writing(path)) for path in reversed(list(content))}
        for path, data in content.items():
            files[path].write(data)
            _sync(files[path])


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _create(path: Path) -> BinaryIO:
    """A file with a temporary name, locked as long as it is open."""
    while True:
        try:
            file = open(temporary(path), "xb")  # fails where anything has the name, a link included  # noqa: SIM115
        except OSError as error:
            error.filename = str(path)  # the name that the caller knows
            raise
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a network file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # another process took it for a leftover before it was locked


def _link(written: Path, path: Path) -> None:
    """Gives a file its name, unless something has it."""
    try:
        os.link(written, path)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # fails where anything has the name
        os.replace(written, path)


def _remove_leftovers(path: Path) -> None:
    """Removes temporary files of `path` whose process is gone: nobody holds their lock."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError):  # there is no such folder, which is said when the file is made
        for found in filter(lambda found: is_temporary(found, path), path.parent.iterdir()):
            with contextlib.suppress(OSError):
                descriptor = os.open(found, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    found.unlink()
                finally:
                    os.close(descriptor)
