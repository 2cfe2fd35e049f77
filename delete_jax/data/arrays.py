"""Images and labels as arrays in one file of NumPy's."""

from __future__ import annotations

import os
import zipfile
import zlib
from typing import Any

import numpy as np

from delete_jax.class_names import class_names
from delete_jax.data.dataset import Split
from delete_jax.data.paths import local_path, show

NAMES = ("x_train", "y_train", "x_test", "y_test")
CLASSES = "class_names"


def read_arrays(path: str | os.PathLike) -> tuple[Split, Split, tuple[str, ...]]:
    """Reads a file of `np.savez` with the arrays `x_train`, `y_train`, `x_test`, `y_test`, and, where classes have names, `class_names`.

    Args:
        path: of the file. Images are uint8 `[n, h, w, c]`, or `[n, h, w]` where they are grey; labels are integers `[n]` from 0;
            `class_names` `[k]` has the name of class i at position i. Without it, classes are called "0", "1", …

    Returns:
        `(train, test, class_names)`: images uint8 `[n, h, w, c]`, labels int32 `[n]`.

    Raises:
        ValueError: there is no such file, it is none of NumPy's, or an array is missing or of another shape or type; names it.
    """
    file = local_path(path, "arrays")
    try:
        # Opened here, so that it is closed where its content fails; a pickle would run what is in it.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as opened:
            found = {name: opened[name] for name in (*NAMES, CLASSES) if name in opened}
    except FileNotFoundError:
        raise ValueError(f"{show(file)}: there is no such file: name one that np.savez has written") from None
    except (OSError, ValueError, TypeError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{show(file)}: cannot be read as a file of arrays ({reason:.80}): write one with np.savez, of numbers and text"
        ) from error
    if absent := [name for name in NAMES if name not in found]:
        raise ValueError(f"{show(file)}: it has no array {absent[0]}: it must have {', '.join(NAMES)}")
    train, test = (_split(found[f"x_{name}"], found[f"y_{name}"], name, show(file)) for name in ("train", "test"))
    if train.images.shape[1:] != test.images.shape[1:]:
        raise ValueError(
            f"{show(file)}: x_train has images of {list(train.images.shape[1:])}, and x_test of {list(test.images.shape[1:])}: "
            "give images of one size"
        )
    count = max((int(split.labels.max()) + 1 for split in (train, test) if len(split.labels)), default=0)
    if CLASSES not in found:
        return train, test, tuple(map(str, range(count)))
    try:
        names = class_names(found[CLASSES].tolist(), max(count, found[CLASSES].size))
    except ValueError as error:
        raise ValueError(f"{show(file)}: {error}") from None
    return train, test, names


def _split(images: Any, labels: Any, name: str, file: str) -> Split:
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ValueError(
            f"{file}: x_{name} is {images.dtype} {list(images.shape)}: give uint8 images, [n, h, w, c] or [n, h, w]"
        )
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{file}: y_{name} is {labels.dtype} {list(labels.shape)}: give an integer for each of the {len(images)} images of x_{name}"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < 2**31:
        raise ValueError(
            f"{file}: y_{name} has labels from {labels.min()} to {labels.max()}: classes are numbered from 0"
        )
    return Split(images if images.ndim == 4 else images[..., None], labels.astype(np.int32))
