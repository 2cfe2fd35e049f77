"""Prepared TFDS directories, `DATA_DIR/NAME/VERSION` in array_record files: find them, prepare our own, read them.

TFDS reads and prepares these without TensorFlow, which is never imported here.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from delete_jax.data.dataset import Split

NAMES = ("digits", "fashion_mnist", "cifar10", "cifar100")

_FORMAT = "array_record"
# Where Debian's package dataset-fashion-mnist puts the four IDX files.
_DEBIAN_FASHION_MNIST = "/usr/share/datasets/fashion-mnist"


def prepared_dir(name: str, data_dir: str | None, source: str | None) -> Path:
    """Returns the prepared directory of a dataset; prepares digits and Fashion-MNIST when there is none.

    Args:
        name: one of `NAMES`.
        data_dir: the root of the prepared datasets; None: `default_data_dir()`.
        source: the folder with Fashion-MNIST's IDX files; None: where Debian puts them. Read only when there is no
            prepared directory.

    Raises:
        ValueError: there is no readable prepared directory, and none can be prepared; the message says what to do.
    """
    root = Path(data_dir or default_data_dir()).expanduser().absolute()
    found = _find(root, name)
    if found is None:
        return _prepare(name, root, source)
    info = json.loads((found / "dataset_info.json").read_text())
    formats = [info.get("fileFormat", "tfrecord"), *info.get("alternativeFileFormats", [])]
    if _FORMAT not in formats:
        raise ValueError(
            f"{found}: is prepared as {formats[0]}, and only {_FORMAT} can be read without TensorFlow; "
            f"move it away, or take another data_dir, and run {_command(name, root)}"
        )
    return found


def default_data_dir() -> str:
    """Returns the environment's `DELETE_JAX_DATA_DIR`, else the directory that TFDS takes by default."""
    return os.environ.get("DELETE_JAX_DATA_DIR") or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"


def read_prepared(directory: Path) -> tuple[Split, Split, tuple[str, ...]]:
    """Reads the splits "train" and "test" of a prepared directory, with its features "image" and "label".

    Returns:
        `(train, test, class_names)`, in the order of the files.
    """
    from PIL import Image

    builder = open_prepared(directory)
    features = builder.info.features
    splits = []
    for name in ("train", "test"):
        count, records = read_records(builder, name)
        images = np.empty((count, *features["image"].shape), np.uint8)
        labels = np.empty(count, np.int32)
        for i, feature in enumerate(records):
            with Image.open(io.BytesIO(feature["image"].bytes_list.value[0])) as image:
                images[i] = np.frombuffer(image.tobytes(), np.uint8).reshape(images.shape[1:])
            labels[i] = feature["label"].int64_list.value[0]
        splits.append(Split(images, labels))
    train, test = splits
    return train, test, tuple(features["label"].names)


def open_prepared(directory: Path) -> Any:
    """Returns the TFDS builder of a prepared directory."""
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(directory, file_format=_FORMAT)


def read_records(builder: Any, split: str) -> tuple[int, Iterator[Any]]:
    """Returns how many records a split has, and these: maps from a feature's name to its undecoded value."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.proto import tf_example_pb2

    # Raw records: TFDS' own decoding takes twice as long, and its DESERIALIZE_NO_DECODE needs TensorFlow.
    records = builder.as_data_source(split=split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)

    def features() -> Iterator[Any]:
        for start in range(0, len(records), 4096):  # in blocks: much faster than one by one
            for record in records.__getitems__(range(start, min(start + 4096, len(records)))):
                yield tf_example_pb2.Example.FromString(record).features.feature

    return len(records), features()


def _find(root: Path, name: str) -> Path | None:
    """The newest version; what an interrupted preparation left has another kind of name."""
    versions = [
        directory
        for directory in root.glob(f"{name}/*")
        if re.fullmatch(r"\d+\.\d+\.\d+", directory.name) and (directory / "dataset_info.json").is_file()
    ]
    return max(versions, key=lambda directory: [int(part) for part in directory.name.split(".")], default=None)


def _prepare(name: str, root: Path, source: str | None) -> Path:
    wanted = root / name / "VERSION"
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

    import tensorflow_datasets as tfds

    if name == "digits":
        from delete_jax.data.digits.digits_dataset_builder import Builder
    else:
        from delete_jax.data.fashion_mnist.fashion_mnist_dataset_builder import Builder
    # Without the GCS check, which asks the network.
    config = tfds.download.DownloadConfig(manual_dir=source, try_download_gcs=False)
    builder = Builder(data_dir=root, file_format=_FORMAT)
    try:
        builder.download_and_prepare(download_config=config)
    except OSError as error:
        # Of two processes that prepare at once the slower one finds the directory in place, which is as good.
        if _find(root, name) is None:
            raise ValueError(
                f"{root}: {name} cannot be prepared there ({error}); "
                "give a writable data_dir or set DELETE_JAX_DATA_DIR"
            ) from error
    return Path(builder.data_dir)


def _command(name: str, root: Path) -> str:
    # Not `tfds build`: beside TensorFlow it needs apache_beam and mlcroissant to start at all (TFDS 4.9.10).
    return (
        "pip install 'delete_jax[data]' and then python -c \"import tensorflow_datasets as tfds; "
        f"tfds.builder('{name}', data_dir='{root}', file_format='{_FORMAT}').download_and_prepare()\""
    )
