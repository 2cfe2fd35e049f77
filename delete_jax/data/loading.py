"""From a name to a dataset: one row of a table for each kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from delete_jax.data import scenes, tfds_dirs
from delete_jax.data.dataset import Dataset, Split, hold_out, pixel_statistics
from delete_jax.data.folder import read_folder
from delete_jax.data.pets import read_pets
from delete_jax.data.voc import read_voc

Found = tuple[Split, Split, tuple[str, ...]]
"""Training samples, test samples, class names."""


class Options(NamedTuple):
    """Where a dataset lies, and how large its images shall be (see `load`); None where nothing was said."""

    data_dir: str | None = None
    source: str | None = None
    size: int | None = None


class Kind(NamedTuple):
    """A kind of dataset.

    read: `(name, options) -> Found`; the name without the prefix.
    takes: which options it reads.
    prefix: whether the row's key is followed by a path, as in "folder:PATH".
    where: `(name, options) ->` the folder that it lies in.
    """

    read: Callable[[str, Options], Found]
    takes: tuple[str, ...]
    prefix: bool = False
    where: Callable[[str, Options], Path] = lambda name, options: Path(name)


SIZE = 256  # pixels, where images are resized and nobody said to what


def _prepared_dir(name: str, options: Options) -> Path:
    return tfds_dirs.prepared_dir(name, options.data_dir, options.source)


def _prepared(name: str, options: Options) -> Found:
    return tfds_dirs.read_prepared(_prepared_dir(name, options))


def _garments_dir(name: str, options: Options) -> Path:
    return _prepared_dir("fashion_mnist", options)


def _scenes(name: str, options: Options) -> Found:
    train, test, _ = tfds_dirs.read_prepared(_garments_dir(name, options))
    train = scenes.compose(train, scenes.NUM_TRAIN, seed=0)
    return train, scenes.compose(test, scenes.NUM_TEST, seed=1), scenes.CLASS_NAMES


def _pets(name: str, options: Options) -> Found:
    return read_pets(_prepared_dir(name, options), options.size or SIZE)


KINDS: dict[str, Kind] = {
    "digits": Kind(_prepared, ("data_dir",), where=_prepared_dir),
    "fashion_mnist": Kind(_prepared, ("data_dir", "source"), where=_prepared_dir),
    "cifar10": Kind(_prepared, ("data_dir",), where=_prepared_dir),
    "cifar100": Kind(_prepared, ("data_dir",), where=_prepared_dir),
    "scenes": Kind(_scenes, ("data_dir", "source"), where=_garments_dir),
    "oxford_iiit_pet": Kind(_pets, ("data_dir", "size"), where=_prepared_dir),
    "folder:": Kind(lambda name, options: read_folder(name), (), prefix=True),
    "voc:": Kind(lambda name, options: read_voc(name, options.size or SIZE), ("size",), prefix=True),
}


def names() -> list[str]:
    """What `load` takes, for a message."""
    return [f"{key}PATH" if kind.prefix else key for key, kind in KINDS.items()]


def find(name: str) -> tuple[Kind, str]:
    """The kind of a dataset, and its name without the prefix.

    Raises:
      ValueError: there is no such kind, or no path behind its prefix.
    """
    key = name[: name.find(":") + 1] or name
    if key not in KINDS:
        raise ValueError(f"unknown dataset {name!r}: give one of {', '.join(names())}")
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


def load(
    name: str,
    *,
    data_dir: str | None = None,
    source: str | None = None,
    validation: float = 0.1,
    size: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Loads a dataset into host memory.

    Args:
        name: "digits" (scikit-learn's, prepared on first use), "fashion_mnist" (prepared on first use from IDX files),
            "cifar10", "cifar100" (prepared by TFDS as array_record files) or "folder:PATH"
            (`PATH/train/CLASS/*.png` and `PATH/test/CLASS/*.png`, also jpg and jpeg). For segmentation: "scenes" (composed
            of fashion_mnist's garments), "oxford_iiit_pet" (prepared by TFDS as array_record files) or "voc:PATH" (Pascal
            VOC 2012's folder).
        data_dir: the root of the prepared TFDS datasets; None: the environment's `DELETE_JAX_DATA_DIR`, else that of
            TFDS (`TFDS_DATA_DIR` or `~/tensorflow_datasets`).
        source: for "fashion_mnist" and "scenes", the folder with the four IDX files, read when nothing is prepared; None:
            `/usr/share/datasets/fashion-mnist`.
        validation: the fraction of every class's training samples to hold out, in [0, 1); a class of two samples or
            more gives at least one. 0: none.
        size: in pixels, of the square that images of any size are brought to ("voc" and "oxford_iiit_pet"); 256 when None.
        seed: decides which ones; not negative.

    Returns:
        The dataset, its samples in a fixed order.

    Raises:
        ValueError: an argument is not allowed or would not count, or the data is missing or damaged; one line that says what to do.
    """
    if not 0 <= validation < 1:
        raise ValueError(f"validation={validation}: give the fraction of the training samples to hold out, in [0, 1)")
    if seed < 0:
        raise ValueError(f"seed={seed}: give an integer from 0")
    if size is not None and size < 1:
        raise ValueError(f"size={size}: give the side of the images in pixels, at least 1")
    kind, rest = find(name)
    options = Options(data_dir, source, size)
    check_options(name, kind.takes, **options._asdict())
    train, test, class_names = kind.read(rest, options)
    train, held_out = hold_out(train, validation, seed)
    return Dataset(name, train, held_out, test, class_names, *pixel_statistics(train.images))
