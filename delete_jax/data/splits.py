"""What splits must be like to train on and to measure with, found before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from delete_jax.data.dataset import Dataset
from delete_jax.given import class_numbers


def missing(dataset: Dataset, classes: int | Iterable[int]) -> list[tuple[str, int]]:
    """Finds classes that do not occur in a split.

    Args:
        dataset: with labels `[n]` or maps. A class occurs in a map with at least one pixel of it.
        classes: one class number or several.

    Raises:
        ValueError: `classes` is a mask, or contains something other than a class number.

    Returns:
        `(split, class)` for each split without a sample of a class: "train", "validation" and "test", in this order.
    """
    numbers = class_numbers(classes, name="classes")
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    return [(name, c) for name, split in splits.items() for c in numbers if not np.any(split.labels == c)]


def check_splits(dataset: Dataset, validation: float, erased: Iterable[int] = ()) -> Dataset:
    """Returns the dataset if it can be trained on and measured with.

    Args:
        dataset: as it was split.
        validation: the fraction that was to be held out.
        erased: classes that may have no samples.

    Raises:
        ValueError: a split is empty, or, where labels are `[n]`, a label is no class or another class has no training sample.
    """
    name, names = dataset.name, dataset.class_names
    for split, samples in (("training", dataset.train), ("test", dataset.test)):
        if not len(samples.labels):
            raise ValueError(f"{name}: has no {split} samples: add some")
        if not dataset.has_maps and not 0 <= samples.labels.min() <= samples.labels.max() < len(names):
            wrong = samples.labels[(samples.labels < 0) | (samples.labels >= len(names))][0]
            raise ValueError(f"{name}: a {split} sample has the label {wrong}, and classes are 0 to {len(names) - 1}")
    if validation > 0 and not len(dataset.validation.labels):
        where = "in all" if dataset.has_maps else "in each class"
        raise ValueError(
            f"{name}: has 1 training image {where}, so that nothing can be held out for validation={validation}: add images, "
            "for each class at least one to train on and one to hold out"
        )
    if not dataset.has_maps and (
        absent := sorted(set(range(len(names))) - set(np.unique(dataset.train.labels).tolist()) - set(erased))
    ):
        raise ValueError(
            f"{name}: class {absent[0]} ({names[absent[0]]}) has no training sample: add some, or leave the class out"
        )
    return dataset
