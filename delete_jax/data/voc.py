"""Pascal VOC 2012, as its development kit lies on disk."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from delete_jax.data.dataset import Split
from delete_jax.data.folder import open_image
from delete_jax.data.masks import check_mask, fit_pair

CLASS_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def read_voc(path: str | os.PathLike, size: int) -> tuple[Split, Split, tuple[str, ...]]:
    """Reads the segmentation splits "train" and "val" (as test) of a folder such as `VOCdevkit/VOC2012`.

    Args:
        path: holds `JPEGImages/NAME.jpg`, `SegmentationClass/NAME.png` and `ImageSets/Segmentation/{train,val}.txt`.
        size: to which the longer side is brought; the rest of the square is black, and ignored (255).

    Returns:
        `(train, test, class_names)`: images uint8 `[n, size, size, 3]`, label maps uint8 `[n, size, size]`.

    Raises:
        ValueError: a folder or file is missing, damaged, empty, of another size, or holds other labels; the message names it.
    """
    root = Path(path)
    splits = []
    for split in ("train", "val"):
        listing = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        if not listing.is_file():
            raise ValueError(
                f"{listing}: no such file; give the folder of VOC 2012 that holds ImageSets and JPEGImages"
            )
        names = listing.read_text().split()
        if not names:
            raise ValueError(f"{listing}: lists no images")
        images = np.empty((len(names), size, size, 3), np.uint8)
        labels = np.empty((len(names), size, size), np.uint8)
        for i, name in enumerate(names):
            image = open_image(root / "JPEGImages" / f"{name}.jpg")
            mask_file = root / "SegmentationClass" / f"{name}.png"
            mask = open_image(mask_file)
            check_mask(mask_file, mask, image, len(CLASS_NAMES))
            images[i], labels[i] = fit_pair(image, mask, size)
        splits.append(Split(images, labels))
    train, test = splits
    return train, test, CLASS_NAMES
