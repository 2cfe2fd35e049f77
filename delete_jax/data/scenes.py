"""Scenes for segmentation: real photographs of garments (Fashion-MNIST) composed on a background, by seed."""

from __future__ import annotations

import numpy as np

from delete_jax.data.dataset import Split

SIZE, CELL = 64, 32
GARMENTS = {0: "T-shirt/top", 1: "Trouser", 3: "Dress", 5: "Sandal", 8: "Bag", 9: "Ankle boot"}
CLASS_NAMES = ("background", *GARMENTS.values())
NUM_TRAIN, NUM_TEST = 1200, 300
PRESENT = 0.75  # how often each quarter of a scene holds a garment
LEVEL = 16  # of 255: what is darker is not the garment, unless it is a hole in it


def compose(garments: Split, count: int, seed: int) -> Split:
    """Composes `count` scenes of 64x64: in each quarter a garment, most of the time, moved by up to 2 pixels.

    Args:
        garments: Fashion-MNIST, uint8 `[n, 28, 28, 1]` and its labels; those of `GARMENTS` are used.
        count: of scenes.
        seed: not negative; the same arguments give the same scenes.

    Returns:
        Images uint8 `[count, 64, 64, 1]` and label maps uint8 `[count, 64, 64]`: 0 is background, class i + 1 the i-th
        of `GARMENTS`.

    Raises:
        ValueError: one of these garments does not occur.
    """
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    classes = list(GARMENTS)
    members = [np.flatnonzero(garments.labels == class_) for class_ in classes]
    for name, found in zip(GARMENTS.values(), members, strict=True):
        if not len(found):
            raise ValueError(f"scenes: Fashion-MNIST has no {name!r} to compose them of; prepare the whole of it")
    brightness = rng.uniform(0, 90, (count, 1, 1))
    images = np.clip(brightness + rng.normal(0, 12, (count, SIZE, SIZE)), 0, 255).astype(np.uint8)
    labels = np.zeros((count, SIZE, SIZE), np.uint8)
    for image, label in zip(images, labels, strict=True):
        present = rng.random(4) < PRESENT
        present[rng.integers(4)] = True  # no scene is empty
        for quarter in np.flatnonzero(present):
            class_ = rng.integers(len(classes))
            garment = garments.images[rng.choice(members[class_]), ..., 0]
            shape = ndimage.binary_fill_holes(garment >= LEVEL)
            top, left = np.array(divmod(quarter, 2)) * CELL + rng.integers(0, CELL - 28 + 1, 2)
            window = (slice(top, top + 28), slice(left, left + 28))
            image[window] = np.where(shape, garment, image[window])
            label[window] = np.where(shape, class_ + 1, label[window])
    return Split(images[..., None], labels)
