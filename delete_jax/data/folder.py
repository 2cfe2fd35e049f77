"""Images in folders, one folder per class."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from delete_jax.data.dataset import Split

SUFFIXES = (".png", ".jpg", ".jpeg")
_CHANNELS = {"L": 1, "RGB": 3}


def read_folder(path: str | os.PathLike) -> tuple[Split, Split, tuple[str, ...]]:
    """Reads `path/train/CLASS/*` and `path/test/CLASS/*`: png, jpg and jpeg, all of one size, all grey or all RGB.

    Classes are numbered by their sorted folder names, images come in the order of class and file name.

    Args:
        path: the folder that holds `train` and `test`.

    Returns:
        `(train, test, class_names)`.

    Raises:
        ValueError: a folder or file is missing, empty, superfluous, unreadable or of another size or mode; the message
            names it.
    """
    train_names, test_names = (_class_names(Path(path, split)) for split in ("train", "test"))
    for name in sorted(train_names ^ test_names):
        there, missing = ("train", "test") if name in train_names else ("test", "train")
        raise ValueError(
            f"{Path(path, there, name)}: has no counterpart {Path(path, missing, name)}; "
            "train and test must have the same class folders"
        )
    class_names = tuple(sorted(train_names))
    splits = [
        [(file, label) for label, name in enumerate(class_names) for file in _image_files(Path(path, split, name))]
        for split in ("train", "test")
    ]
    first = splits[0][0][0]
    like = _read_image(first).shape
    return _read_split(splits[0], like, first), _read_split(splits[1], like, first), class_names


def _class_names(folder: Path) -> set[str]:
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; images belong in train/CLASS/ and test/CLASS/")
    names = {entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    if not names:
        raise ValueError(f"{folder}: has no class folders; images belong in {folder.name}/CLASS/")
    return names


def _image_files(folder: Path) -> list[Path]:
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))
    if not files:
        raise ValueError(f"{folder}: has no images; put {', '.join(SUFFIXES)} files in, or remove it")
    return files


def _read_split(files: list[tuple[Path, int]], shape: tuple[int, ...], first: Path) -> Split:
    images = np.empty((len(files), *shape), np.uint8)
    for image, (file, _) in zip(images, files, strict=True):
        pixels = _read_image(file)
        if pixels.shape != shape:
            raise ValueError(
                f"{file}: is {_describe(pixels.shape)}, and {first} is {_describe(shape)}; "
                "convert the images to one size and mode"
            )
        image[:] = pixels
    return Split(images, np.array([label for _, label in files], np.int32))


def _describe(shape: tuple[int, ...]) -> str:
    height, width, channels = shape
    return f"{width}x{height} {'grey' if channels == 1 else 'RGB'}"


def _read_image(path: Path) -> np.ndarray:
    image = open_image(path)
    if image.mode not in _CHANNELS:
        raise ValueError(f"{path}: has mode {image.mode}; convert it to grey (L) or RGB, 8 bits per channel")
    pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], _CHANNELS[image.mode])


def open_image(path: str | Path) -> Any:
    """A decoded PIL image; ValueError, naming the file, where it is missing or damaged."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            return image.copy()
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file, and the split lists it") from None
    # PIL says damaged in many ways: SyntaxError for PNG chunks, struct.error, its decompression bomb, ...
    except Exception as error:
        raise ValueError(f"{path}: cannot be read as an image ({error}); replace or remove it") from error
