"""Pascal VOC 2012, as its development kit lies on disk."""

from __future__ import annotations

import os
from pathlib import Path

from delete_jax.data.dataset import Split
from delete_jax.data.images import open_image, photo
from delete_jax.data.masks import check_mask, fit_pair, open_mask
from delete_jax.data.memory import empty_images
from delete_jax.data.paths import local_path, show

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
    root = local_path(path, "voc")
    splits = []
    for split in ("train", "val"):
        listing = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        names = _names(listing)
        images = empty_images((len(names), size, size, 3), show(listing))
        labels = empty_images((len(names), size, size), show(listing))
        for i, name in enumerate(names):
            image_file = root / "JPEGImages" / f"{name}.jpg"
            mask_file = root / "SegmentationClass" / f"{name}.png"
            image, mask = photo(open_image(image_file), show(image_file)), open_mask(mask_file)
            check_mask(show(mask_file), mask, image, len(CLASS_NAMES))
            images[i], labels[i] = fit_pair(image, mask, size)
        splits.append(Split(images, labels, [f"JPEGImages/{name}.jpg" for name in names]))
    train, test = splits
    return train, test, CLASS_NAMES


def _names(listing: Path) -> list[str]:
    if not listing.is_file():
        raise ValueError(
            f"{show(listing)}: no such file; give the folder of VOC 2012 that holds ImageSets and JPEGImages"
        )
    try:
        names = listing.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{show(listing)}: cannot be read as text ({error}); replace it") from error
    if not names:
        raise ValueError(f"{show(listing)}: lists no images")
    for name in names:
        if name.startswith("/") or ".." in name.split("/") or "\0" in name:
            raise ValueError(
                f"{show(listing)}: lists {name!r}, which is outside the dataset; list names such as 2007_000032"
            )
    return names
