"""Images by the names of their files: a list of names, and which images they are."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

from delete_jax.data.paths import local_path, show

T = TypeVar("T", bound=Hashable)
SHOWN = 5
"""Names in a message; of the others, the number."""


def read_names(path: str | os.PathLike, what: str) -> list[str]:
    """Reads names of files, one a line, in UTF-8; empty lines do not count.

    Args:
      path: of the list. what: of which argument, for the message.

    Raises:
      ValueError: there is no such file, it is no text, or has no names or one name twice.
    """
    file = local_path(path, what)
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise ValueError(
            f"{what}={show(path)}: cannot be read ({reason}): give a file with a name of an image a line"
        ) from None
    names = [name for line in lines if (name := line.strip().removeprefix("./"))]
    if not names:
        raise ValueError(f"{what}={show(path)}: has no names: give a file with a name of an image a line")
    if twice := [name for name, count in _counts(names).items() if count > 1]:
        raise ValueError(f"{what}={show(path)}: lists {_some(twice)} twice: leave one out")
    return names


def look_up(names: Sequence[str], known: Iterable[tuple[str, T]]) -> dict[str, T]:
    """Finds what names of files stand for: the end of one path each, from a "/" on, or the whole of it.

    Args:
      names: such as "12.jpg", "cat/12.jpg" or "train/cat/12.jpg".
      known: paths, and what they stand for, which may be the same for several.

    Raises:
      ValueError: names that are no path's end, or stand for several things; names them.

    Examples:
      >>> from delete_jax.data.names import look_up
      >>> look_up(["cat/1.jpg"], [("train/cat/1.jpg", 0), ("train/dog/1.jpg", 1)])
      {'cat/1.jpg': 0}
    """
    found: dict[str, dict[T, str]] = {name: {} for name in names}
    for path, meant in known:
        end = path
        while end:
            if end in found:
                found[end].setdefault(meant, path)
            end = end.partition("/")[2]
    wrong = []
    if missing := [name for name, meant in found.items() if not meant]:
        wrong.append(f"there is no image {_some(missing)}")
    if several := [name for name, meant in found.items() if len(meant) > 1]:
        paths = list(found[several[0]].values())
        wrong.append(
            f"several images end in {_some(several)} (such as {paths[0]} and {paths[1]}): write more of the path"
        )
    if wrong:
        raise ValueError("; ".join(wrong))
    return {name: next(iter(meant)) for name, meant in found.items()}


def _counts(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(show, names[:SHOWN]))
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
