"""The Oxford-IIIT pets with masks, from a directory that TFDS prepared: a class per breed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from delete_jax.data import tfds_dirs
from delete_jax.data.damage import damage, read_class_names
from delete_jax.data.dataset import IGNORE, Split, check_map_classes
from delete_jax.data.images import decode
from delete_jax.data.masks import fit_pair
from delete_jax.data.memory import empty_images

_FORMATS = (
    "JPEG",
    "PNG",
    "GIF",
    "BMP",
)  # some photographs are not what their names say, and TFDS takes them as they are
_ANIMAL, _BACKGROUND = 1, 2  # of the trimap; 3 is the border between them


def read_pets(directory: Path, size: int) -> tuple[Split, Split, tuple[str, ...]]:
    """Reads the splits of a prepared `oxford_iiit_pet`: 0 is background, class i + 1 the i-th breed, borders are ignored.

    Args:
        directory: `DATA_DIR/oxford_iiit_pet/VERSION` of array_record files.
        size: to which the longer side is brought; the rest of the square is black, and ignored (255).

    Returns:
        `(train, test, class_names)`: images uint8 `[n, size, size, 3]`, label maps uint8 `[n, size, size]`.

    Raises:
        ValueError: it is damaged: an image and its mask differ in size, say, or the mask is no trimap; the message says which
            record.
    """
    with damage(directory):
        builder = tfds_dirs.open_prepared(directory)
        breeds = read_class_names(directory, "label")
        check_map_classes("oxford_iiit_pet", len(breeds) + 1)
        train, test = (_read_split(builder, name, size, len(breeds)) for name in ("train", "test"))
    return train, test, ("background", *breeds)


def _read_split(builder: Any, name: str, size: int, num_breeds: int) -> Split:
    count, records = tfds_dirs.read_records(builder, name)
    images = empty_images((count, size, size, 3), "oxford_iiit_pet")
    labels = empty_images((count, size, size), "oxford_iiit_pet")
    for i, feature in enumerate(records):
        image, mask = (
            decode(io.BytesIO(feature[key].bytes_list.value[0]), f"{key} {i} of {name}", _FORMATS, upright=False)
            for key in ("image", "segmentation_mask")
        )
        if mask.size != image.size:
            raise ValueError(f"mask {i} of {name} is {mask.size}, its image {image.size}")
        images[i], trimap = fit_pair(image, mask, size)
        if not np.isin(trimap, (_ANIMAL, _BACKGROUND, 3, IGNORE)).all():
            raise ValueError(f"mask {i} of {name} holds {np.unique(trimap)}; a trimap holds 1, 2 and 3")
        breed = feature["label"].int64_list.value[0]
        if not 0 <= breed < num_breeds:
            raise ValueError(f"record {i} of {name} has the label {breed} and there are {num_breeds} breeds")
        labels[i] = np.select([trimap == _ANIMAL, trimap == _BACKGROUND], [breed + 1, 0], IGNORE)
    return Split(images, labels)
