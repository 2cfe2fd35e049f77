"""Tiny-ImageNet, as it is unpacked: 200 classes of ImageNet, 64x64."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from delete_jax.data.dataset import Split
from delete_jax.data.files import class_names, image_files
from delete_jax.data.images import open_image, photo
from delete_jax.data.memory import empty_images
from delete_jax.data.paths import local_path, show

WHERE = "give the folder tiny-imagenet-200, which holds words.txt, wnids.txt, train and val"


def read_tiny_imagenet(path: str | os.PathLike) -> tuple[Split, Split, tuple[str, ...]]:
    """Reads the splits "train" and "val" (as test, since the labels of "test" were never published).

    Classes are numbered by their WordNet ids, sorted; a class's name is its first in `words.txt`, with the id where two
    classes share it. Grey images get three channels.

    Args:
        path: holds `wnids.txt`, `words.txt`, `train/WNID/images/*.JPEG`, `val/images/*.JPEG` and `val/val_annotations.txt`.

    Returns:
        `(train, test, class_names)`: images uint8 `[n, h, w, 3]`, in the order of class and file name and, in test, of the
        annotations; labels int32 `[n]`.

    Raises:
        ValueError: a folder or file is missing, superfluous, damaged or of another size; the message names it.
    """
    root = local_path(path, "tiny_imagenet")
    ids = _ids(root)
    train = [(file, label) for label, wnid in enumerate(ids) for file in _images(root / "train" / wnid / "images")]
    test = _annotated(root / "val", {wnid: label for label, wnid in enumerate(ids)})
    names = _names(root / "words.txt", ids)
    first = train[0][0]
    like = _read(first).shape
    return _split(train, like, first, root), _split(test, like, first, root), names


def _ids(root: Path) -> list[str]:
    listing = root / "wnids.txt"
    lines = _lines(listing)
    ids = sorted(fields[0] for _, fields in lines)
    if repeated := [wnid for wnid, count in Counter(ids).items() if count > 1]:
        raise ValueError(f"{show(listing)}: lists {repeated[0]!r} twice; replace it")
    folders = class_names(root / "train", "train/WNID/images/")
    for wnid in sorted(folders ^ set(ids)):
        folder = show(root / "train" / wnid)
        missing = f"no such folder, and {show(listing)} lists it; unpack the dataset again"
        raise ValueError(f"{folder}: {f'is not in {show(listing)}; remove it' if wnid in folders else missing}")
    return ids


def _images(folder: Path) -> list[Path]:
    files = image_files(folder)
    if not files:
        raise ValueError(f"{show(folder)}: has no images; unpack the dataset again")
    return files


def _annotated(folder: Path, labels: dict[str, int]) -> list[tuple[Path, int]]:
    """The images of the val split, with their labels."""
    listing, found = folder / "val_annotations.txt", {}
    there = {file.name: file for file in _images(folder / "images")}
    for number, (name, *rest) in _lines(listing):
        where = f"{show(listing)}, line {number}"
        if not rest or rest[0] not in labels:
            said = f"has class {rest[0]!r}, which wnids.txt does not list" if rest else "has no class"
            raise ValueError(f"{where}: {said}; lines are NAME, WNID and four numbers, with tabs between")
        if name in found:
            raise ValueError(f"{where}: lists {name!r} a second time; replace it")
        if name not in there:
            raise ValueError(
                f"{where}: lists {name!r}, and {show(folder / 'images')} has no such image; unpack it again"
            )
        found[name] = (there[name], labels[rest[0]])
    if left := sorted(there.keys() - found.keys()):
        raise ValueError(f"{show(there[left[0]])}: is not in {show(listing)} ({len(left)} such images); remove it")
    return list(found.values())


def _names(file: Path, ids: Sequence[str]) -> tuple[str, ...]:
    said = {fields[0]: fields[1].split(",")[0].strip() for _, fields in _lines(file) if len(fields) > 1}
    for wnid in ids:
        if not said.get(wnid):
            raise ValueError(f"{show(file)}: has no name for {wnid!r}, which wnids.txt lists; replace it")
    count = Counter(said[wnid] for wnid in ids)
    return tuple(said[wnid] if count[said[wnid]] == 1 else f"{said[wnid]} ({wnid})" for wnid in ids)


def _lines(file: Path) -> list[tuple[int, list[str]]]:
    """The number of each line that is not empty, from 1, and what stands between its tabs."""
    if not file.is_file():
        raise ValueError(f"{show(file)}: no such file; {WHERE}")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{show(file)}: cannot be read as text ({error}); replace it") from error
    lines = [(i + 1, line.strip().split("\t")) for i, line in enumerate(text.split("\n")) if line.strip()]
    if not lines:
        raise ValueError(f"{show(file)}: is empty; unpack the dataset again")
    return lines


def _split(files: list[tuple[Path, int]], shape: tuple[int, ...], first: Path, root: Path) -> Split:
    images = empty_images((len(files), *shape), show(files[0][0].parent))
    for image, (file, _) in zip(images, files, strict=True):
        found = _read(file)
        if found.shape != shape:
            sizes = [f"{width}x{height}" for height, width, _ in (found.shape, shape)]
            raise ValueError(f"{show(file)}: is {sizes[0]}, and {show(first)} is {sizes[1]}; replace it")
        image[:] = found
    names = [file.relative_to(root).as_posix() for file, _ in files]
    return Split(images, np.array([label for _, label in files], np.int32), names)


def _read(file: Path) -> np.ndarray:
    return np.asarray(photo(open_image(file), show(file)).convert("RGB"))
