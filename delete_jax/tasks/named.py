"""Requests by the names of images' files, as `config.task.files` gives them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from delete_jax.data import Dataset
from delete_jax.data.names import look_up, read_names

FIELD = "config.task.files"


def samples(path: str, dataset: Dataset) -> tuple[np.ndarray, tuple[str, ...]]:
    """Finds training samples by the names in a file.

    Returns:
      Their positions in the training split, int `[m]`, sorted; and the names, in the order of the file.

    Raises:
      ValueError: a name is of no training image or of several, or of one that the original is not trained on.
    """
    names = read_names(path, FIELD)
    found = _found(path, names, dataset, ("train", "validation"))
    held_out = [name for name, (split, _) in found.items() if split != "train"]
    if held_out:
        raise ValueError(
            f"{FIELD}={path}: {held_out[0]} is held out for validation ({len(held_out)} such): leave it out if the original was not trained "
            "on it, else give another --config.seed or a smaller --config.data.validation"
        )
    positions = sorted(position for _, position in found.values())
    if len(set(positions)) < len(positions):
        raise ValueError(f"{FIELD}={path}: two of its names are of one image: leave one out")
    return np.array(positions), tuple(names)


def classes(path: str, dataset: Dataset) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Finds the classes of images, such as people, by the names in a file.

    Returns:
      The classes, sorted; and the names, in the order of the file.

    Raises:
      ValueError: a name is of no image, or of images of several classes.
    """
    names = read_names(path, FIELD)
    labels = {split: getattr(dataset, split).labels for split in ("train", "validation", "test")}
    known = ((file, int(labels[split][i])) for file, (split, i) in _files(path, dataset, tuple(labels)))
    try:
        found = look_up(names, known)
    except ValueError as error:
        raise ValueError(f"{FIELD}={path}: of {dataset.name}, {error}") from None
    return tuple(sorted(set(found.values()))), tuple(names)


def _found(path: str, names: Sequence[str], dataset: Dataset, splits: Sequence[str]) -> dict[str, tuple[str, int]]:
    try:
        return look_up(names, _files(path, dataset, splits))
    except ValueError as error:
        raise ValueError(f"{FIELD}={path}: of the training images of {dataset.name}, {error}") from None


def _files(path: str, dataset: Dataset, splits: Sequence[str]) -> Iterator[tuple[str, tuple[str, int]]]:
    """The names of a dataset's files, each with its split and its position there."""
    for split in splits:
        files = getattr(dataset, split).files
        if files is None:
            raise ValueError(
                f"{FIELD}={path}: the images of {dataset.name} come from no files: leave it out, and name numbers of samples or classes"
            )
        yield from ((file, (split, position)) for position, file in enumerate(files))
