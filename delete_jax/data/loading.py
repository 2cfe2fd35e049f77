"""From a name to a dataset: one row of a table for each kind."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from delete_jax.data import scenes, tfds_dirs
from delete_jax.data.arrays import read_arrays
from delete_jax.data.dataset import Dataset, Split, hold_out, pixel_statistics
from delete_jax.data.folder import read_folder
from delete_jax.data.images import MAX_SIDE
from delete_jax.data.paths import local_path
from delete_jax.data.pets import read_pets
from delete_jax.data.splits import check_splits
from delete_jax.data.tiny_imagenet import read_tiny_imagenet
from delete_jax.data.voc import read_voc
from delete_jax.nearest import nearest
from delete_jax.plugins import Table

Found = tuple[Split, Split, tuple[str, ...]]
"""Training samples, test samples, class names."""


class Where(NamedTuple):
    """Where a dataset lies, how large its images shall be (None where nothing was said), and the names of the classes that may have no
    samples (see `load`)."""

    data_dir: str | os.PathLike | None = None
    source: str | os.PathLike | None = None
    size: int | None = None
    erased: tuple[str, ...] = ()


class Kind(NamedTuple):
    """A kind of dataset: a row of `delete_jax.data.KINDS`.

    Attributes:
      read: `(name, where) -> (training samples, test samples, class names)`, two `Split` and a tuple. The name is without the prefix;
        `where` has the arguments `data_dir`, `source` and `size` of `load`, and the names in `erased`, which a reader that takes
        class names from samples adds to them. It raises ValueError for data that cannot be read.
      takes: which of `data_dir`, `source` and `size` it reads.
      prefix: whether the row's key, which then ends in ":", is followed by a path, as in "folder:PATH".
      folder: `(name, where) ->` the folder that it lies in.
      answers: what has a class: an "image" or a "pixel"; "" where only reading it tells.
    """

    read: Callable[[str, Where], Found]
    takes: tuple[str, ...]
    prefix: bool = False
    folder: Callable[[str, Where], Path] = lambda name, where: local_path(name, "folder")
    answers: str = ""


SIZE = 256  # pixels, where images are resized and nobody said to what


def _prepared_dir(name: str, where: Where) -> Path:
    return tfds_dirs.prepared_dir(name, where.data_dir, where.source)


def _prepared(name: str, where: Where) -> Found:
    return tfds_dirs.read_prepared(_prepared_dir(name, where))


def _garments_dir(name: str, where: Where) -> Path:
    return _prepared_dir("fashion_mnist", where)


def _scenes(name: str, where: Where) -> Found:
    train, test, _ = tfds_dirs.read_prepared(_garments_dir(name, where))
    train = scenes.compose(train, scenes.NUM_TRAIN, seed=0)
    return train, scenes.compose(test, scenes.NUM_TEST, seed=1), scenes.CLASS_NAMES


def _pets(name: str, where: Where) -> Found:
    return read_pets(_prepared_dir(name, where), where.size or SIZE)


KINDS: Table[Kind] = Table(
    "datasets",
    {
        "digits": Kind(_prepared, ("data_dir",), folder=_prepared_dir, answers="image"),
        "fashion_mnist": Kind(_prepared, ("data_dir", "source"), folder=_prepared_dir, answers="image"),
        "cifar10": Kind(_prepared, ("data_dir",), folder=_prepared_dir, answers="image"),
        "cifar100": Kind(_prepared, ("data_dir",), folder=_prepared_dir, answers="image"),
        "scenes": Kind(_scenes, ("data_dir", "source"), folder=_garments_dir, answers="pixel"),
        "oxford_iiit_pet": Kind(_pets, ("data_dir", "size"), folder=_prepared_dir, answers="pixel"),
        "folder:": Kind(
            lambda name, where: read_folder(name, where.size, where.erased), ("size",), prefix=True, answers="image"
        ),
        "arrays:": Kind(
            lambda name, where: read_arrays(name),
            (),
            prefix=True,
            folder=lambda name, where: local_path(name, "arrays"),
            answers="image",
        ),
        "tiny_imagenet:": Kind(lambda name, where: read_tiny_imagenet(name), (), prefix=True, answers="image"),
        "voc:": Kind(lambda name, where: read_voc(name, where.size or SIZE), ("size",), prefix=True, answers="pixel"),
    },
    lambda row: isinstance(row, Kind),
    lambda name, row: f"{name}:" if row.prefix else name,
)
"""Every kind of dataset that `load` knows, by its name or the prefix of its path."""


def names() -> list[str]:
    """Lists the names that `load` takes, for a message."""
    return [f"{key}PATH" if kind.prefix else key for key, kind in KINDS.items()]


def find(name: str) -> tuple[Kind, str]:
    """Finds the kind of a dataset, and its name without the prefix.

    Raises:
      ValueError: there is no such kind, or no path behind its prefix.
    """
    if not isinstance(name, str):
        raise ValueError(f"dataset {name!r}: give a name, one of {', '.join(names())}")
    key = name[: name.find(":") + 1] or name
    if key not in KINDS:
        raise ValueError(
            f"unknown dataset {name!r}{nearest(name, KINDS)}: give one of {', '.join(names())} (people to recognise: load_faces)"
        )
    rest = name.removeprefix(key) if KINDS[key].prefix else name
    if not rest:
        raise ValueError(f"dataset {name!r}: give the path of a folder behind it, as in {key}PATH")
    return KINDS[key], rest


def check_options(name: str, takes: tuple[str, ...], **given: Any) -> None:
    """Raises ValueError for an option that was given, and that this dataset does not read."""
    for option, value in given.items():
        if value is not None and option not in takes:
            reads = f"it reads {' and '.join(takes)}" if takes else "it reads none"
            raise ValueError(f"{option}={value!r} does not count for the dataset {name} ({reads}): leave it out")


def check_numbers(validation: float, seed: int, size: int | None) -> None:
    """Raises ValueError for a fraction, a seed or a size that is none."""
    if not isinstance(validation, numbers.Real) or isinstance(validation, bool) or not 0 <= validation < 1:
        raise ValueError(f"validation={validation!r}: give the fraction of the training samples to hold out, in [0, 1)")
    check_whole("seed", seed, 0, "an integer from 0")
    if size is not None:
        check_whole("size", size, 1, "the side of the images in pixels, at least 1", MAX_SIDE)


def check_whole(what: str, value: Any, least: int, allowed: str, most: float = math.inf) -> None:
    """Raises ValueError unless a value is an integer within bounds."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise ValueError(f"{what}={value!r}: give {allowed}")
    if value > most:
        raise ValueError(f"{what}={value!r}: give {allowed}, and at most {most}")


def load(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    source: str | os.PathLike | None = None,
    validation: float = 0.1,
    size: int | None = None,
    seed: int = 0,
    erased: Mapping[int, str] | None = None,
) -> Dataset:
    """Loads a dataset into host memory.

    Args:
        name: "digits" (scikit-learn's, prepared on first use), "fashion_mnist" (prepared on first use from IDX files),
            "cifar10", "cifar100" (prepared by TFDS as array_record files), "tiny_imagenet:PATH" (its unpacked folder) or
            "folder:PATH" (`PATH/train/CLASS/*.png` and `PATH/test/CLASS/*.png`, also jpg, bmp and webp; if all class names are whole
            numbers, classes are in numerical order) or "arrays:FILE.npz" (the arrays `x_train`, `y_train`, `x_test`, `y_test` and,
            if classes have names, `class_names`; see `arrays.read_arrays`). For segmentation: "scenes" (composed from fashion_mnist's garments),
            "oxford_iiit_pet" (prepared by TFDS as array_record files) or "voc:PATH" (Pascal VOC 2012's folder). In all paths,
            "~" is the home folder.
        data_dir: the root of the prepared TFDS datasets. If None, the environment variable `DELETE_JAX_DATA_DIR`, or else the
            root of TFDS (`TFDS_DATA_DIR` or `~/tensorflow_datasets`).
        source: for "fashion_mnist" and "scenes", the folder with the four IDX files, which is read if nothing is prepared. If
            None, `/usr/share/datasets/fashion-mnist`.
        validation: the fraction of each class's training samples to hold out, in [0, 1); 0 for none. A class of two samples or
            more gives at least one.
        size: in pixels, of the square that images become. For "folder", the shorter side is scaled to it and the middle is
            cropped; if None, all images must have the same size. For "voc" and "oxford_iiit_pet", the longer side is scaled to
            it; 256 if None.
        seed: decides which samples are held out; an integer from 0.
        erased: classes that a network was made to forget and whose samples may have been deleted since, by their numbers in that network,
            such as `{3: "cat"}`. They keep number and name. Of "folder", their folders may be missing; of "arrays", `class_names`
            names them still.

    Returns:
        The dataset, with its samples in a fixed order. No split is empty, except validation if nothing is held out. Each class
        of images but those of `erased` has training samples; in label maps, a class may not occur (see `missing`).

    Raises:
        ValueError: an argument is not allowed or has no effect, or the data is missing, damaged, too large, or too small to
            train on; or an erased class has another number in it. The message is one line that says what to do.

    Examples:
        >>> from delete_jax import data
        >>> dataset = data.load("digits", validation=0.15)
        >>> dataset.train.images.shape, dataset.class_names[:3]
        ((1221, 8, 8, 1), ('0', '1', '2'))
    """
    check_numbers(validation, seed, size)
    kind, rest = find(name)
    erased = {} if erased is None else _numbered(erased)
    check_options(name, kind.takes, data_dir=data_dir, source=source, size=size)
    train, test, class_names = kind.read(rest, Where(data_dir, source, size, tuple(erased.values())))
    _check_numbers_of(erased, class_names, name)
    train, held_out = hold_out(train, validation, seed)
    mean, std = pixel_statistics(train.images)
    return check_splits(Dataset(name, train, held_out, test, class_names, mean, std), validation, erased)


def _numbered(erased: Any) -> dict[int, str]:
    """Raises ValueError unless these are names of classes by number."""
    for number, called in erased.items() if isinstance(erased, Mapping) else [(None, erased)]:
        if not isinstance(number, int | np.integer) or not isinstance(called, str):
            raise ValueError(f"erased={erased!r:.80}: give the names of classes by number, such as {{3: 'cat'}}")
    return {int(number): called for number, called in erased.items()}


def _check_numbers_of(erased: Mapping[int, str], names: Sequence[str], dataset: str) -> None:
    """Raises ValueError where an erased class would have another number than in the network that forgot it: others have come or gone."""
    for number, called in erased.items():
        found = names[number] if 0 <= number < len(names) else None
        if found != called:
            here = f"there are {len(names)} classes" if found is None else f"that is {found!r}"
            raise ValueError(
                f"{dataset}: class {number} of the network that forgot it is {called!r}, and here {here}: all other classes must be as "
                "they were (of arrays, class_names must name all)"
            )
