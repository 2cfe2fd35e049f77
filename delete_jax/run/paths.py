"""Paths as the commands are given them."""

from __future__ import annotations

import re
from pathlib import Path


def expanded(text: str, flag: str = "") -> Path:
    """Expands "~" in a path to the home folder.

    Args:
      text: what was given. flag: by which option, such as "--out"; "" for an argument.

    Raises:
      ValueError: there is no such home folder, or it is not text: such names come back from files and tables as others.

    Examples:
      >>> from delete_jax.run.paths import expanded
      >>> expanded("runs/digits")
      PosixPath('runs/digits')
    """
    said = f"{flag}={text}" if flag else text
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{said.encode('utf-8', 'backslashreplace').decode()}: a path must be UTF-8: rename it"
        ) from None
    if "\0" in text:
        raise ValueError(f"{said!r}: a path has no zero byte")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        user = text.split("/")[0]
        raise ValueError(f"{said}: there is no home folder {user}: write the path in full") from None


def local(text: str, flag: str = "") -> Path:
    """Checks a path to write to, on this machine (`expanded`).

    Raises:
      ValueError: as `expanded`; or it is a URL, such as gs://BUCKET/FOLDER, of which `Path` would make a local folder called "gs:".
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise ValueError(
            f"{flag + '=' if flag else ''}{text}: files are renamed and locked there, which that storage cannot do: name a path on a "
            "local or mounted disk, and copy it there afterwards"
        )
    return expanded(text, flag)
