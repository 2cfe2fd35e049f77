"""The Oxford-IIIT pets with masks, from a directory that TFDS prepared: a class per breed."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from delete_jax.data import tfds_dirs
from delete_jax.data.dataset import Split
from delete_jax.data.masks import IGNORE, fit_pair

_ANIMAL, _BACKGROUND = 1, 2  # of the trimap; 3 is the border between them


def read_pets(directory: Path, size: int) -> tuple[Split, Split, tuple[str, ...]]:
    """Reads the splits of a prepared `oxford_iiit_pet`: 0 is background, class i + 1 the i-th breed, borders are ignored.

    Args:
        directory: `DATA_DIR/oxford_iiit_pet/VERSION` of array_record files.
        size: to which the longer side is brought; the rest of the square is black, and ignored (255).

    Returns:
        `(train, test, class_names)`: images uint8 `[n, size, size, 3]`, label maps uint8 `[n, size, size]`.

    Raises:
        ValueError: an image and its mask differ in size, or the mask is no trimap; the message says which record.
    """
    from PIL import Image

    builder = tfds_dirs.open_prepared(directory)
    breeds = tuple(builder.info.features["label"].names)
    splits = []
    for name in ("train", "test"):
        count, records = tfds_dirs.read_records(builder, name)
        images = np.empty((count, size, size, 3), np.uint8)
        labels = np.empty((count, size, size), np.uint8)
        for i, feature in enumerate(records):
            image, mask = (
                Image.open(io.BytesIO(feature[key].bytes_list.value[0])) for key in ("image", "segmentation_mask")
            )
            if mask.size != image.size:
                raise ValueError(f"{directory}: mask {i} of {name} is {mask.size}, its image {image.size}")
            images[i], trimap = fit_pair(image, mask, size)
            if not np.isin(trimap, (_ANIMAL, _BACKGROUND, 3, IGNORE)).all():
                raise ValueError(
                    f"{directory}: mask {i} of {name} holds {np.unique(trimap)}; a trimap holds 1, 2 and 3"
                )
            breed = feature["label"].int64_list.value[0]
            labels[i] = np.select([trimap == _ANIMAL, trimap == _BACKGROUND], [breed + 1, 0], IGNORE)
        splits.append(Split(images, labels))
    train, test = splits
    return train, test, ("background", *breeds)
