"""The IDX files of MNIST and its relatives, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import os
import zlib

import numpy as np

_UNSIGNED_BYTE = 0x08


def read_idx(path: str | os.PathLike, ndim: int) -> np.ndarray:
    """Reads an IDX file of unsigned bytes.

    Args:
        path: of the file; gzipped when it ends in ".gz".
        ndim: the number of axes that it must have: 3 for images, 1 for labels.

    Returns:
        uint8 with `ndim` axes.

    Raises:
        ValueError: the file cannot be read, is truncated, or holds something else; the message names it.
    """
    opener = gzip.open if os.fspath(path).endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            data = file.read()
    except (OSError, EOFError, zlib.error) as error:  # gzip's ways of saying damaged, truncated or no gzip file
        raise ValueError(f"{path}: cannot be read as an IDX file ({error}); fetch it again") from error
    header = 4 + 4 * ndim
    if len(data) < header or data[:4] != bytes([0, 0, _UNSIGNED_BYTE, ndim]):
        raise ValueError(
            f"{path}: starts with 0x{data[:4].hex()}, and an IDX file of unsigned bytes with {ndim} "
            f"axes starts with 0x{bytes([0, 0, _UNSIGNED_BYTE, ndim]).hex()}; give the right file"
        )
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", count=ndim, offset=4))
    if len(data) - header != math.prod(shape):
        raise ValueError(
            f"{path}: holds {len(data) - header} bytes after its header, which announces {shape}, "
            f"that is {math.prod(shape)}; fetch it again"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def find_idx(folder: str | os.PathLike, name: str) -> str:
    """Returns the path of `name` or `name.gz` in a folder.

    Raises:
        ValueError: it has neither.
    """
    for candidate in (os.path.join(folder, name), os.path.join(folder, name + ".gz")):
        if os.path.isfile(candidate):
            return candidate
    raise ValueError(f"{folder}: has neither {name} nor {name}.gz; give the folder with the four IDX files")
