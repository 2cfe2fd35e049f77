"""The IDX files of MNIST and its relatives, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import os
import zlib

import numpy as np

from delete_jax.data.paths import show

_UNSIGNED_BYTE = 0x08
_BLOCK = 2**24


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
    start = bytes([0, 0, _UNSIGNED_BYTE, ndim])
    opener = gzip.open if os.fspath(path).endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            head = file.read(4 + 4 * ndim)
            if len(head) < 4 + 4 * ndim or head[:4] != start:
                raise ValueError(
                    f"{show(path)}: starts with 0x{head[:4].hex()}, and an IDX file of unsigned bytes with {ndim} "
                    f"axes starts with 0x{start.hex()}; give the right file"
                )
            shape = tuple(int(size) for size in np.frombuffer(head, ">u4", offset=4))
            # Block by block: what is announced may be anything, and so may be what a gzip file unpacks to.
            blocks, there = [], 0
            while there <= math.prod(shape) and (block := file.read(_BLOCK)):
                blocks.append(block)
                there += len(block)
    except (OSError, EOFError, zlib.error) as error:  # gzip's ways of saying damaged, truncated or no gzip file
        raise ValueError(f"{show(path)}: cannot be read as an IDX file ({error}); fetch it again") from error
    if there != math.prod(shape):
        raise ValueError(
            f"{show(path)}: holds {there} bytes{' or more' if there > math.prod(shape) else ''} after its header, which "
            f"announces {shape}, that is {math.prod(shape)}; fetch it again"
        )
    return np.frombuffer(b"".join(blocks), np.uint8).reshape(shape)


def find_idx(folder: str | os.PathLike, name: str) -> str:
    """Returns the path of `name` or `name.gz` in a folder.

    Raises:
        ValueError: it has neither.
    """
    for candidate in (os.path.join(folder, name), os.path.join(folder, name + ".gz")):
        if os.path.isfile(candidate):
            return candidate
    raise ValueError(f"{show(folder)}: has neither {name} nor {name}.gz; give the folder with the four IDX files")
