"""Folders of images: what is read of them, what is left out, and what must not be left out without a word."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from delete_jax.data.images import SUFFIXES
from delete_jax.data.paths import is_text, show

_OTHER_SUFFIXES = frozenset(
    [
        ".gif",
        ".tif",
        ".tiff",
        ".heic",
        ".heif",
        ".avif",
        ".jp2",
        ".j2k",
        ".jpx",
        ".jxl",
        ".jxr",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".tga",
        ".pcx",
        ".ico",
        ".dds",
        ".exr",
        ".hdr",
        ".psd",
        ".svg",
        ".eps",
        ".ps",
        ".dng",
        ".cr2",
        ".cr3",
        ".nef",
        ".arw",
        ".orf",
        ".rw2",
        ".raf",
    ]
)
_FIRST_BYTES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*")


def class_names(folder: Path, layout: str) -> set[str]:
    """Lists the folders in a folder by name, without hidden ones; links to folders count.

    Args:
        folder: which holds one folder per class.
        layout: where images belong, for the message.

    Raises:
        ValueError: it is missing, cannot be read, has no folders, has images beside them, or one has a name that is not UTF-8.
    """
    names: set[str] = set()
    images: list[str] = []
    for entry in _entries(folder, layout):
        if _is(entry, "dir"):
            if not is_text(entry.name):
                raise ValueError(
                    f"{show(entry.path)}: its name is not UTF-8; rename it, reports hold the names of classes"
                )
            names.add(entry.name)
        elif _is_image(entry):
            images.append(entry.path)
    if not names:
        raise ValueError(f"{show(folder)}: has no class folders; images belong in {layout}")
    _refuse(images, folder, f"images belong in {layout}")
    return names


def image_files(folder: Path) -> list[Path]:
    """Lists the images in a folder by name, without hidden files, such as macOS' `._x`, and files of other kinds.

    Raises:
        ValueError: it cannot be read, something with an image's suffix is no file, or there are images that would be left out:
            of formats that are not read, or in folders below; the message names the first.
    """
    files: list[Path] = []
    others: list[str] = []
    for entry in _entries(folder, f"{show(folder)}"):
        if _is(entry, "dir"):
            others += _images_below(entry)
        elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
            if not _is(entry, "file"):
                raise ValueError(f"{show(entry.path)}: is no file (but a broken link, a pipe or a device); remove it")
            files.append(Path(entry.path))
        elif _is_image(entry):
            others.append(entry.path)
    _refuse(others, folder, f"only {', '.join(SUFFIXES)} directly in the folder are read; convert, move or remove it")
    return files


def class_order(names: Iterable[str]) -> list[str]:
    """Names sorted as text; where all are whole numbers, as numbers, so that "10" comes after "2"."""
    names = sorted(names)
    return sorted(names, key=int) if all(re.fullmatch(r"-?[0-9]+", name) for name in names) else names


def _entries(folder: str | Path, layout: str) -> list[os.DirEntry[str]]:
    """What is in a folder, by name, without hidden files."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not _is_hidden(e.name)), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{show(folder)}: no such folder; images belong in {layout}") from None
    except OSError as error:
        raise ValueError(f"{show(folder)}: cannot be read ({error.strerror})") from None


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _is(entry: os.DirEntry, kind: str) -> bool:
    try:
        return entry.is_dir() if kind == "dir" else entry.is_file()
    except OSError:  # a link to itself
        return False


def _images_below(folder: os.DirEntry) -> Iterator[str]:
    if folder.is_symlink():  # could lead anywhere, and in circles
        yield folder.path
        return
    for entry in _entries(folder.path, folder.path):
        if _is(entry, "dir"):
            yield from _images_below(entry)
        elif _is_image(entry):
            yield entry.path


def _is_image(entry: os.DirEntry) -> bool:
    """By its name, or by its first bytes."""
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix in SUFFIXES or suffix in _OTHER_SUFFIXES:
        return True
    if not _is(entry, "file"):
        return False
    try:
        with open(entry.path, "rb") as file:
            first = file.read(12)
    except OSError:
        return False
    return first.startswith(_FIRST_BYTES) or (first[:4], first[8:]) == (b"RIFF", b"WEBP")


def _refuse(images: list[str], folder: Path, remedy: str) -> None:
    if images:
        raise ValueError(f"{show(images[0])}: would be passed over ({len(images)} such in {show(folder)}): {remedy}")
