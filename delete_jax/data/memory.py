"""Room for images, refused before the machine is brought down."""

from __future__ import annotations

import math
import os

import numpy as np

_GIB = 2**30
_UNKNOWN = 64 * _GIB  # where the system does not say how much memory there is


class TooLarge(ValueError):
    """The images that were asked for do not fit in memory."""


def empty_images(shape: tuple[int, ...], what: str) -> np.ndarray:
    """Allocates an uninitialised uint8 array for images or label maps.

    Args:
        shape: of the array.
        what: whose images these are, for the message.

    Raises:
        TooLarge: it is larger than this machine's memory, or the system does not give so much.
    """
    wanted, there = math.prod(shape), _physical_memory()
    try:
        if wanted <= there:
            return np.empty(shape, np.uint8)
    except (MemoryError, ValueError):  # ValueError: more than an index can count
        pass
    raise TooLarge(
        f"{what}: {'x'.join(map(str, shape))} bytes of images take {wanted / _GIB:.1f} GiB, and this machine has {there / _GIB:.1f} GiB of "
        "memory: give a smaller size or fewer images"
    )


def _physical_memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on this system
        return _UNKNOWN
