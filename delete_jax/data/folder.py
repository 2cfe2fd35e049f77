"""Images in folders, one folder per class."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from delete_jax.data.dataset import Split
from delete_jax.data.files import class_names, class_order, image_files
from delete_jax.data.images import SUFFIXES, open_image, photo, pixels, square
from delete_jax.data.memory import empty_images
from delete_jax.data.paths import local_path, show


def read_folder(path: str | os.PathLike, size: int | None = None) -> tuple[Split, Split, tuple[str, ...]]:
    """Reads `path/train/CLASS/*` and `path/test/CLASS/*`: png, jpeg, bmp and webp, all grey or all RGB.

    Classes are numbered by their folder names, sorted as text, or as numbers where all of them are whole numbers ("2" before
    "10"); images come in the order of class and file name. Hidden files and files that are no images are left out.

    Args:
        path: the folder that holds `train` and `test`; other folders in it are not looked at.
        size: to which the shorter side is brought, of which the middle is taken; None: all images must be of one size.

    Returns:
        `(train, test, class_names)`: images uint8 `[n, h, w, c]`, labels int32 `[n]`.

    Raises:
        ValueError: a folder or file is missing, empty, superfluous, unreadable or of another size or mode, or an image would
            be passed over, for its format or in a folder further down; the message names it.
    """
    root = local_path(path, "folder")
    there = {split: class_names(root / split, f"{split}/CLASS/") for split in ("train", "test")}
    for name in sorted(there["train"] ^ there["test"]):
        split, other = ("train", "test") if name in there["train"] else ("test", "train")
        raise ValueError(
            f"{show(root / split / name)}: has no counterpart {show(root / other / name)}; "
            "train and test must have the same class folders"
        )
    names = tuple(class_order(there["train"]))
    files = {split: _files(root / split, names) for split in there}
    first = files["train"][0][0]
    like = _read(first, size).shape
    train, test = (_read_split(files[split], like, first, size) for split in ("train", "test"))
    return train, test, names


def _files(folder: Path, names: tuple[str, ...]) -> list[tuple[Path, int]]:
    found = []
    for label, name in enumerate(names):
        files = image_files(folder / name)
        if not files:
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
