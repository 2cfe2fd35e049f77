"""Paths that somebody gives: which are allowed, and how a message shows them."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path


def show(path: str | os.PathLike) -> str:
    """Formats a path for a message: one line, with what cannot be printed (line ends, bytes that are not UTF-8) escaped."""
    text = os.fspath(path)
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def is_text(name: str) -> bool:
    """Whether a name from the file system is UTF-8, so that reports can hold it."""
    return not any("\ud800" <= c <= "\udfff" for c in name)


def local_path(given: str | os.PathLike, what: str) -> Path:
    """Returns a path on this machine, with "~" and "~NAME" as home folders. It does not check that anything is there.

    Args:
        given: what somebody wrote.
        what: of which argument, for the message.

    Raises:
        ValueError: it is no path, empty, a URL (such as gs://BUCKET/FOLDER, of which `Path` would make a local folder called
            "gs:"), holds a NUL byte or what is not UTF-8, is too long, or names a home folder that there is not.
    """
    if not isinstance(given, str | os.PathLike) or not isinstance(text := os.fspath(given), str):
        raise ValueError(f"{what}={given!r}: give a path, as text")
    if not text:
        raise ValueError(f"{what} is empty: give a path")
    named = f"{what}={show(text)}"
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise ValueError(
            f"{named}: only files of this machine are read: copy it to a local or mounted disk, and name that"
        )
    if "\0" in text or not is_text(text):
        raise ValueError(
            f"{named}: a path cannot hold {'a NUL byte' if chr(0) in text else 'bytes that are not UTF-8'}"
        )
    home = text.split("/")[0]
    # An empty HOME would make "~/x" a folder of the root, or of the current folder.
    if home.startswith("~") and (os.path.expanduser(home) == home or (home == "~" and os.environ.get("HOME") == "")):
        raise ValueError(f"{named}: there is no home folder for {home}: give the whole path")
    path = Path(os.path.expanduser(text))
    try:
        os.stat(path)
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise ValueError(f"{named}: {error.strerror}: give another path") from None
    return path
