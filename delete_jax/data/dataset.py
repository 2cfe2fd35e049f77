"""What a dataset is here: three splits of uint8 images, their classes and the statistics of the training pixels."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from delete_jax.given import class_numbers, is_masked

IGNORE = 255
"""The label of pixels that do not count."""


class _Samples(NamedTuple):
    images: np.ndarray
    labels: np.ndarray


class Split(_Samples):
    """Images with their labels, which are what unpacking gives: `images, labels = split`.

    Attributes:
        images: uint8 `[n, h, w, c]`.
        labels: int32 `[n]`, class numbers from 0; in segmentation, maps uint8 `[n, h, w]`, where pixels of 255 do not count.
        files: `n` names of the images' files, from the dataset's folder on, such as "train/cat/12.jpg"; None for images of no files.

    Raises:
        ValueError: there are not as many names as images.

    Examples:
        >>> import numpy as np
        >>> from delete_jax import data
        >>> images, labels = data.Split(np.zeros((1, 8, 8, 1), np.uint8), np.array([0], np.int32), ["train/cat/12.jpg"])
        >>> labels
        array([0], dtype=int32)
    """

    files: tuple[str, ...] | None

    def __new__(cls, images: np.ndarray, labels: np.ndarray, files: Sequence[str] | None = None) -> Split:
        self = super().__new__(cls, images, labels)
        if files is not None and len(files) != len(images):
            raise ValueError(f"files has {len(files)} names for {len(images)} images: give one for each")
        self.files = None if files is None else tuple(files)
        return self

    def _replace(self, **changed: Any) -> Split:
        """As of a named tuple; the names of the files stay unless they are replaced."""
        files = changed.pop("files", self.files)
        return Split(**{**self._asdict(), **changed}, files=files)


@dataclass(frozen=True, eq=False)  # eq=False: comparing arrays with == gives no truth value; compare `digest` instead
class Dataset:
    """Train, validation and test split of one dataset.

    Attributes:
        name: the name that it was loaded by.
        train: the training samples, without the validation samples.
        validation: samples held out from the training data; empty if none were requested.
        test: the dataset's own test split.
        class_names: the name of class i at position i.
        mean: float32 `[c]`, mean of the training pixels, scaled to [0, 1].
        std: float32 `[c]`, their standard deviation, at least 1e-6.

    Raises:
        ValueError: labels are maps, and there are more classes than a byte can hold next to `IGNORE`; or a split has masked arrays.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray

    def __post_init__(self) -> None:
        for split in (self.train, self.validation, self.test):
            check_no_mask(split)
        if self.has_maps:
            check_map_classes(self.name, self.num_classes)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def has_maps(self) -> bool:
        """Whether labels are maps, one class per pixel."""
        return self.train.labels.ndim == 3

    @functools.cached_property
    def digests(self) -> dict[str, str]:
        """sha256 (hex) of the "train", "validation" and "test" split, each computed once (`split_digest`)."""
        return {name: split_digest(getattr(self, name)) for name in ("train", "validation", "test")}

    @functools.cached_property
    def digest(self) -> str:
        """sha256 (hex) over the images, labels and class names of all splits, in their order; computed once."""
        return hashlib.sha256("\0".join([*self.digests.values(), *self.class_names]).encode()).hexdigest()


def check_no_mask(split: Split) -> None:
    """Raises ValueError where images or labels are one of NumPy's masked arrays: what is masked would count."""
    for name, values in split._asdict().items():
        if is_masked(values):
            raise ValueError(
                f"{name} must not be a masked array, whose mask would be lost: fill it, such as with .filled(255)"
            )


def check_map_classes(name: str, num_classes: int) -> None:
    """Raises ValueError, naming the dataset, where label maps have so many classes that one would be called `IGNORE`."""
    if num_classes > IGNORE:
        raise ValueError(
            f"{name}: has {num_classes} classes; label maps can hold {IGNORE}, as {IGNORE} marks pixels that do not count: "
            "merge some classes"
        )


def split_digest(split: Split) -> str:
    """Returns the sha256 (hex) of a split's image shape, images and labels, in their order."""
    digest = hashlib.sha256(repr(split.images.shape).encode())
    digest.update(np.ascontiguousarray(split.images).data)
    digest.update(np.ascontiguousarray(split.labels, dtype="<i4").data)
    return digest.hexdigest()


def forget_remain(split: Split, forget: int | Iterable[int]) -> tuple[Split, Split]:
    """Splits samples by class into those to forget and the remaining ones. Both keep the order of `split`.

    In segmentation, every image with a pixel of a class in `forget` is a sample to forget.

    Args:
        split: `n` samples.
        forget: one class number or several. A class without samples in `split` selects none.

    Returns:
        `(forget, remain)`, which together are the `n` samples.

    Raises:
        ValueError: `forget` is a mask, or contains something other than a class number; or `split` has masked arrays.

    Examples:
        >>> import numpy as np
        >>> from delete_jax import data
        >>> split = data.Split(np.zeros((4, 8, 8, 1), np.uint8), np.array([0, 1, 2, 1], np.int32))
        >>> forget, remain = data.forget_remain(split, [1])
        >>> forget.labels.tolist(), remain.labels.tolist()
        ([1, 1], [0, 2])
    """
    check_no_mask(split)
    hit = np.isin(split.labels, np.asarray(class_numbers(forget), np.int64))
    chosen: np.ndarray = np.any(hit, axis=tuple(range(1, hit.ndim)))
    return take(split, chosen), take(split, ~chosen)


def take(split: Split, which: np.ndarray) -> Split:
    """Returns the samples at `which`, a boolean mask or indices `[m]`."""
    files = None if split.files is None else np.array(split.files, object)[which].tolist()
    return Split(split.images[which], split.labels[which], files)


def hold_out(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Takes `round(fraction * count)` samples of every class out of a split.

    A class with two samples or more gives at least one and keeps at least one; both results keep the order of `split`.
    In segmentation images are taken, whatever they show.

    Args:
        split: `n` samples.
        fraction: in [0, 1); 0 takes nothing.
        seed: not negative; which samples are taken is a pure function of the labels, `fraction` and `seed`.

    Returns:
        `(kept, held_out)`.
    """
    held_out = np.zeros(len(split.labels), bool)
    if fraction > 0:
        groups = split.labels if split.labels.ndim == 1 else np.zeros(len(split.labels), np.int32)
        for label in np.unique(groups):
            members = np.flatnonzero(groups == label)
            count = min(max(round(fraction * len(members)), 1), len(members) - 1)
            # One stream per class: what is held out of one class does not depend on the other classes.
            held_out[np.random.default_rng([seed, int(label)]).permutation(members)[:count]] = True
    return take(split, ~held_out), take(split, held_out)


def pixel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation, float32 `[c]`, of uint8 images `[n, h, w, c]` scaled to [0, 1]."""
    channels = images.shape[-1]
    counts = np.zeros((channels, 256), np.int64)
    # Counting the 256 levels is exact, and block by block it needs no floating-point copy of the images.
    for start in range(0, len(images), 1024):
        for channel in range(channels):
            counts[channel] += np.bincount(images[start : start + 1024, ..., channel].ravel(), minlength=256)
    levels = np.arange(256) / 255
    total = counts.sum(axis=1)
    mean = counts @ levels / total
    variance = (counts * np.square(levels - mean[:, None])).sum(axis=1) / total
    return mean.astype(np.float32), np.maximum(np.sqrt(variance), 1e-6).astype(np.float32)
