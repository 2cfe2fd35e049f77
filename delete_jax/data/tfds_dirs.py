"""Prepared TFDS directories, `DATA_DIR/NAME/VERSION` in array_record files: find them, prepare our own, read them.

TFDS reads and prepares these without TensorFlow, which is never imported here.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from delete_jax.data import digits, fashion_mnist
from delete_jax.data.building import build
from delete_jax.data.damage import check_features, damage, read_class_names, read_json
from delete_jax.data.dataset import Split
from delete_jax.data.memory import empty_images
from delete_jax.data.paths import local_path, show

NAMES = ("digits", "fashion_mnist", "cifar10", "cifar100")

_FORMAT = "array_record"
_CLASS_NAMES = {"digits": digits.CLASS_NAMES, "fashion_mnist": fashion_mnist.CLASS_NAMES}
# Where Debian's package dataset-fashion-mnist puts the four IDX files.
_DEBIAN_FASHION_MNIST = "/usr/share/datasets/fashion-mnist"


def prepared_dir(name: str, data_dir: str | os.PathLike | None, source: str | os.PathLike | None) -> Path:
    """Returns the prepared directory of a dataset; prepares digits and Fashion-MNIST when there is none.

    Args:
        name: one of `NAMES`.
        data_dir: the root of the prepared datasets; None: the environment's `DELETE_JAX_DATA_DIR`, else `TFDS_DATA_DIR`, else
            `~/tensorflow_datasets`.
        source: the folder with Fashion-MNIST's IDX files; None: where Debian puts them. Read only when there is no
            prepared directory.

    Raises:
        ValueError: there is no readable prepared directory, and none can be prepared; the message says what to do.
    """
    root = _root(data_dir)
    if source is not None:
        source = str(local_path(source, "source"))
    found = _find(root, name)
    if found is None:
        return _prepare(name, root, source)
    with damage(found):
        info = read_json(found / "dataset_info.json")
        formats = [info.get("fileFormat", "tfrecord"), *info.get("alternativeFileFormats", [])]
    if _FORMAT not in formats:
        raise ValueError(
            f"{show(found)}: is prepared as {formats[0]}, and only {_FORMAT} can be read without TensorFlow; "
            f"move it away, or take another data_dir, and run {_command(name, root)}"
        )
    return found


def _root(data_dir: str | os.PathLike | None) -> Path:
    if data_dir is not None:
        return local_path(data_dir, "data_dir").absolute()
    for name in ("DELETE_JAX_DATA_DIR", "TFDS_DATA_DIR"):
        if given := os.environ.get(name):
            return local_path(given, name).absolute()
    try:
        return local_path("~/tensorflow_datasets", "data_dir").absolute()
    except ValueError as error:
        raise ValueError(f"{error}, or set DELETE_JAX_DATA_DIR") from None


def read_prepared(directory: Path) -> tuple[Split, Split, tuple[str, ...]]:
    """Reads the splits "train" and "test" of a prepared directory, with its features "image" and "label".

    Returns:
        `(train, test, class_names)`, in the order of the files.

    Raises:
        ValueError: it is damaged; the message names it.
    """
    with damage(directory):
        builder = open_prepared(directory)
        names = read_class_names(directory, "label")
        if names != _CLASS_NAMES.get(builder.name, names) or len(names) != builder.info.features["label"].num_classes:
            raise ValueError("label.labels.txt does not hold the names of its classes")
        train, test = (_read_split(builder, split, len(names)) for split in ("train", "test"))
    return train, test, names


def _read_split(builder: Any, split: str, num_classes: int) -> Split:
    from PIL import Image

    height, width, channels = builder.info.features["image"].shape
    count, records = read_records(builder, split)
    images = empty_images((count, height, width, channels), builder.name)
    labels = np.empty(count, np.int32)
    with warnings.catch_warnings(action="ignore"):  # Pillow's, of images whose size is then refused
        for i, feature in enumerate(records):
            content = io.BytesIO(feature["image"].bytes_list.value[0])
            with Image.open(content, formats=("PNG", "JPEG")) as image:
                if image.size != (width, height):
                    raise ValueError(f"image {i} of {split} is {image.size}, not {(width, height)}")
                images[i] = np.frombuffer(image.tobytes(), np.uint8).reshape(height, width, channels)
            labels[i] = feature["label"].int64_list.value[0]
    if not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(
            f"{split} has labels from {labels.min()} to {labels.max()} and there are {num_classes} classes"
        )
    return Split(images, labels)


def open_prepared(directory: Path) -> Any:
    """Returns the TFDS builder of a prepared directory; to be called within `damage(directory)`."""
    import tensorflow_datasets as tfds

    check_features(directory)
    builder = tfds.builder_from_directory(directory, file_format=_FORMAT)
    found, wanted = f"{builder.name}/{builder.version}", f"{directory.parent.name}/{directory.name}"
    if found != wanted:
        raise ValueError(f"dataset_info.json is that of {found}")
    return builder


def read_records(builder: Any, split: str) -> tuple[int, Iterator[Any]]:
    """Returns how many records a split has, and these: maps from a feature's name to its undecoded value.

    To be called, and its records read, within `damage`, which makes one line of the many ways in which it fails.
    """
    import tensorflow_datasets as tfds
    from array_record.python import array_record_module
    from tensorflow_datasets.proto import tf_example_pb2

    # Raw records: TFDS' own decoding takes twice as long, and its DESERIALIZE_NO_DECODE needs TensorFlow.
    records = builder.as_data_source(split=split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    # TFDS believes the counts of dataset_info.json.
    there = 0
    for path in builder.info.splits[split].filepaths:
        reader = array_record_module.ArrayRecordReader(os.fspath(path))
        there += reader.num_records()
        reader.close()
    if not 0 < len(records) == there:
        raise ValueError(f"{split} has {there} records, and dataset_info.json says {len(records)}")

    def features() -> Iterator[Any]:
        for start in range(0, len(records), 4096):  # in blocks: much faster than one by one
            for record in records.__getitems__(range(start, min(start + 4096, len(records)))):
                yield tf_example_pb2.Example.FromString(record).features.feature

    return len(records), features()


def _find(root: Path, name: str) -> Path | None:
    """The newest version; what an interrupted preparation left has another kind of name."""

    def rank(directory: Path) -> tuple[bool, list[int]]:
        return (directory / "dataset_info.json").is_file(), [int(part) for part in directory.name.split(".")]

    versions = [path for path in (root / name).glob("*") if re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", path.name)]
    return max(versions, key=rank, default=None)


def _prepare(name: str, root: Path, source: str | None) -> Path:
    wanted = f"{show(root / name)}/VERSION"
    if name == "fashion_mnist":
        source = source or _DEBIAN_FASHION_MNIST
        if not Path(source).is_dir() or not any(Path(source).iterdir()):
            raise ValueError(
                f"fashion_mnist: found neither {wanted} nor files in {source}; give source=, the folder "
                "with the four IDX files (Debian: apt-get install dataset-fashion-mnist), or run "
                + _command(name, root)
            )
    elif name != "digits":
        raise ValueError(f"{name}: {wanted} does not exist; run {_command(name, root)}")

    return build(name, root, source, _FORMAT)


def _command(name: str, root: Path) -> str:
    # Not `tfds build`: beside TensorFlow it needs apache_beam and mlcroissant to start at all (TFDS 4.9.10).
    return (
        "pip install 'delete_jax[data]' and then python -c \"import tensorflow_datasets as tfds; "
        f"tfds.builder('{name}', data_dir='{root}', file_format='{_FORMAT}').download_and_prepare()\""
    )
