"""From labelled samples and a request to what a method reads, and what both must be like."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from delete_jax.data.dataset import IGNORE
from delete_jax.methods.base import FORGET, REMAIN, Stream

MASKS, PIXELS = ("union", "own"), ("all", "forget")


def split_streams(
    images: np.ndarray,
    labels: np.ndarray,
    forget: Sequence[int],
    num_classes: int,
    names: Sequence[str],
    mask: str = "union",
    pixels: str = "all",
) -> dict[str, Stream]:
    """The streams `names` of a labelled set: "forget" has the samples with a class of `forget`, "remain" the others.

    In segmentation a sample with any pixel of a forgotten class is a forget sample; its pixels count, all of them or, with
    `pixels="forget"`, those of a forgotten class.

    Raises:
      ValueError: a class of `forget` has no samples, or a stream that is asked for would be empty.
    """
    hit = np.isin(labels, forget)
    for class_ in forget:
        if FORGET in names and not np.any(labels == class_):
            present = ", ".join(map(str, np.unique(labels)[:20]))
            raise ValueError(f"no sample of class {class_} to forget: the labels given hold classes {present}")
    selected = {FORGET: hit.reshape(len(labels), -1).any(1)}
    selected[REMAIN] = ~selected[FORGET]
    streams = {}
    for name in names:
        chosen = selected[name]
        if not chosen.any():
            raise ValueError(
                f"the method reads {name} samples, but none were given: pass images and labels of both kinds"
            )
        own = labels[chosen]
        counts = np.isin(own, forget) if pixels == "forget" and name == FORGET else own != IGNORE
        streams[name] = {
            "image": images[chosen],
            "label": own.astype(np.int32),
            "weight": counts.astype(np.float32) if labels.ndim > 1 else np.ones(own.shape, np.float32),
            "erase": erase_mask(own, forget, num_classes, mask),
        }
    return streams


def erase_mask(labels: np.ndarray, forget: Sequence[int], num_classes: int, mask: str = "union") -> np.ndarray:
    """The classes to erase at each sample: bool `[n, k]`, or `[n, 1, 1, k]` ("own": `[n, h, w, k]`) in segmentation."""
    erased = np.isin(np.arange(num_classes), forget)
    if mask == "own":
        return (labels[..., None] == np.arange(num_classes)) & erased
    return np.broadcast_to(erased, (len(labels), *[1] * (labels.ndim - 1), num_classes)).copy()


def check_samples(images: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
    """Raises ValueError unless there is one label in range (or map of them) per finite image."""
    if labels.ndim not in (1, 3) or len(labels) != len(images) or not len(images):
        raise ValueError(
            f"labels must be [n] (or [n, h, w]) for images [n, h, w, c], got {labels.shape} for images {images.shape}"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers, got {labels.dtype}")
    wrong = (labels < 0) | (labels >= num_classes)
    if labels.ndim > 1:
        wrong &= labels != IGNORE
    if wrong.any():
        raise ValueError(
            f"label {labels[wrong].flat[0]} is outside the network's {num_classes} classes (0 to {num_classes - 1})"
        )
    if images.dtype != np.uint8 and not np.isfinite(images).all():
        raise ValueError("images hold NaN or infinite values: clean or remove them")


def check_forget(forget: Sequence[int], num_classes: int) -> tuple[int, ...]:
    """The classes to forget, sorted; ValueError when there are none, unknown ones, or all of them."""
    classes = tuple(sorted({int(class_) for class_ in np.atleast_1d(np.asarray(forget, int))}))
    if not classes:
        raise ValueError("no class to forget was given: name at least one, such as forget=[3]")
    for class_ in classes:
        if not 0 <= class_ < num_classes:
            raise ValueError(f"class {class_} cannot be forgotten: the network has classes 0 to {num_classes - 1}")
    if len(classes) == num_classes:
        raise ValueError(f"all {num_classes} classes were to be forgotten: at least one must remain")
    return classes


def check_choices(*, mask: str, pixels: str) -> None:
    """Raises ValueError for an unknown mask or choice of pixels."""
    if mask not in MASKS:
        raise ValueError(f"unknown mask {mask!r}: choose one of {', '.join(MASKS)}")
    if pixels not in PIXELS:
        raise ValueError(f"unknown pixels {pixels!r}: choose one of {', '.join(PIXELS)}")
