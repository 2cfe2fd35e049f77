"""Images in folders, one folder per class."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from delete_jax.data.dataset import Split
from delete_jax.data.files import class_names, class_order, image_files
from delete_jax.data.images import SUFFIXES, open_image, photo, pixels, square
from delete_jax.data.memory import empty_images
from delete_jax.data.paths import local_path, show


def read_folder(
    path: str | os.PathLike, size: int | None = None, erased: Iterable[str] = ()
) -> tuple[Split, Split, tuple[str, ...]]:
    """Reads `path/train/CLASS/*` and `path/test/CLASS/*`: png, jpeg, bmp and webp, all grey or all RGB.

    Classes are numbered by their folder names, sorted as text, or as numbers where all of them are whole numbers ("2" before
    "10"); images come in the order of class and file name. Hidden files and files that are no images are left out.

    Args:
        path: the folder that holds `train` and `test`; other folders in it are not looked at.
        size: to which the shorter side is brought, of which the middle is taken; None: all images must be of one size.
        erased: names of classes whose folders may be missing or empty, in one split or both. They are numbered with the others.

    Returns:
        `(train, test, class_names)`: images uint8 `[n, h, w, c]`, labels int32 `[n]`.

    Raises:
        ValueError: a folder or file is missing, empty, superfluous, unreadable or of another size or mode, or an image would
            be passed over, for its format or in a folder further down; the message names it.
    """
    root = local_path(path, "folder")
    there = {split: class_names(root / split, f"{split}/CLASS/") for split in ("train", "test")}
    may_lack = set(erased)
    for name in sorted((there["train"] ^ there["test"]) - may_lack):
        split, other = ("train", "test") if name in there["train"] else ("test", "train")
        raise ValueError(
            f"{show(root / split / name)}: has no counterpart {show(root / other / name)}; "
            "train and test must have the same class folders"
        )
    names = tuple(class_order(there["train"] | there["test"] | may_lack))
    numbers = {name: number for number, name in enumerate(names)}
    files = {
        split: _files(root / split, {name: numbers[name] for name in names if name in there[split]}, may_lack)
        for split in there
    }
    if absent := [split for split, found in files.items() if not found]:
        raise ValueError(
            f"{show(root / absent[0])}: has no images, and only erased classes may lack them: add the others"
        )
    first = files["train"][0][0]
    like = _read(first, size).shape
    train, test = (_read_split(files[split], like, first, size) for split in ("train", "test"))
    return train, test, names


def _files(folder: Path, numbers: Mapping[str, int], may_lack: set[str]) -> list[tuple[Path, int]]:
    found = []
    for name, label in numbers.items():
        files = image_files(folder / name)
        if not files and name not in may_lack:
            raise ValueError(f"{show(folder / name)}: has no images; put {', '.join(SUFFIXES)} files in, or remove it")
        found += [(file, label) for file in files]
    return found


def _read_split(files: list[tuple[Path, int]], shape: tuple[int, ...], first: Path, size: int | None) -> Split:
    images = empty_images((len(files), *shape), show(files[0][0].parent.parent))
    for image, (file, _) in zip(images, files, strict=True):
        found = _read(file, size)
        if found.shape != shape:
            raise ValueError(
                f"{show(file)}: is {_describe(found.shape)}, and {show(first)} is {_describe(shape)}; "
                "convert the images to one size and mode" + ("" if found.shape[2] != shape[2] else ", or give a size")
            )
        image[:] = found
    root = files[0][0].parent.parent.parent
    return Split(
        images, np.array([label for _, label in files], np.int32), [f.relative_to(root).as_posix() for f, _ in files]
    )


def _read(file: Path, size: int | None) -> np.ndarray:
    image = photo(open_image(file), show(file))
    return pixels(image if size is None else square(image, size))


def _describe(shape: tuple[int, ...]) -> str:
    height, width, channels = shape
    return f"{width}x{height} {'grey' if channels == 1 else 'RGB'}"
