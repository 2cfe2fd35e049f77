"""Images with masks: of any size on disk, of one size in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from delete_jax.data.dataset import IGNORE
from delete_jax.data.images import open_image
from delete_jax.data.paths import show


def fit_pair(image: Any, mask: Any, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Shrinks or enlarges a PIL image and its mask so that the longer side has `size` pixels, and fills up to a square.

    Args:
        image: PIL, any mode.
        mask: PIL, mode L or P, of class numbers; of the image's size.
        size: in pixels.

    Returns:
        uint8 `[size, size, 3]` (bilinear, filled with black) and uint8 `[size, size]` (nearest, filled with 255).
    """
    from PIL import Image

    factor = size / max(image.size)
    shape = tuple(max(1, round(side * factor)) for side in image.size)
    pixels = np.zeros((size, size, 3), np.uint8)
    labels = np.full((size, size), IGNORE, np.uint8)
    width, height = shape
    pixels[:height, :width] = np.asarray(image.convert("RGB").resize(shape, Image.Resampling.BILINEAR))
    labels[:height, :width] = np.asarray(mask.resize(shape, Image.Resampling.NEAREST))
    return pixels, labels


def open_mask(path: Path) -> Any:
    """Opens a PNG file as a PIL image of class numbers, mode L or P, with the levels that were stored.

    Raises:
        ValueError: it is missing, damaged, no PNG, or has other bits per pixel; the message names it.
    """
    mask = open_image(path, formats=("PNG",))
    if mask.mode not in ("L", "P"):
        raise ValueError(f"{show(path)}: has mode {mask.mode}; a mask has one class number per pixel (L or P)")
    with open(path, "rb") as file:
        bits = file.read(25)[24]  # of the header, which comes first in a PNG
    if mask.mode == "L" and bits != 8:  # Pillow stretches 4 bits to 0, 17, ..., 255, which is another class, or ignored
        raise ValueError(f"{show(path)}: has {bits} bits per pixel; store the class numbers with 8")
    return mask


def check_mask(name: str, mask: Any, image: Any, num_classes: int) -> None:
    """Raises ValueError, naming the file, for a mask of another size, or with labels outside the classes."""
    if mask.size != image.size:
        raise ValueError(
            f"{name}: is {mask.size[0]}x{mask.size[1]}, its image {image.size[0]}x{image.size[1]}; they must be of one size"
        )
    values = np.unique(np.asarray(mask))
    wrong = values[(values >= num_classes) & (values != IGNORE)]
    if len(wrong):
        raise ValueError(
            f"{name}: holds label {wrong[0]}; allowed are 0 to {num_classes - 1}, and 255 for pixels to ignore"
        )
