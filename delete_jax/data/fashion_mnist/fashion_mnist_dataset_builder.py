"""TFDS builder for Fashion-MNIST from the four IDX files in a folder.

It has the name, version, features and keys of TFDS' own builder, so what it prepares can stand in for that one's.
TFDS' own downloads the files, needs TensorFlow to encode them, and refuses Debian's, which are compressed anew.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from delete_jax.data.fashion_mnist import CLASS_NAMES
from delete_jax.data.idx import find_idx, read_idx


# Not registered: the name would collide with TFDS' own builder.
class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Fashion-MNIST, read from `manual_dir`."""

    VERSION = tfds.core.Version("3.0.1")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "manual_dir holds the four IDX files, gzipped or not."

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Zalando's article images: 28x28 grey pixels, ten classes, 60000 for training, 10000 for test.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(28, 28, 1)),
                    "label": tfds.features.ClassLabel(names=CLASS_NAMES),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        # Both files of both splits are read and checked here, before anything is written.
        return {
            split: self._generate_examples(*_read_split(dl_manager.manual_dir, prefix))
            for split, prefix in (("train", "train"), ("test", "t10k"))
        }

    def _generate_examples(self, images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
        from PIL import Image

        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            png = io.BytesIO()  # encoded here, because TFDS would encode an array with TensorFlow
            Image.fromarray(image).save(png, "PNG")
            yield i, {"image": png.getvalue(), "label": int(label)}


def _read_split(folder: Any, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    images_path = find_idx(folder, f"{prefix}-images-idx3-ubyte")
    labels_path = find_idx(folder, f"{prefix}-labels-idx1-ubyte")
    images, labels = read_idx(images_path, ndim=3), read_idx(labels_path, ndim=1)
    if images.shape[1:] != (28, 28):
        raise ValueError(f"{images_path}: has images of {images.shape[1:]}, Fashion-MNIST's are (28, 28)")
    if len(images) != len(labels) or not len(labels):
        raise ValueError(
            f"{labels_path}: has {len(labels)} labels and {images_path} {len(images)} images; "
            "there must be one label for each image, and at least one"
        )
    if labels.max() >= len(CLASS_NAMES):
        raise ValueError(
            f"{labels_path}: has the label {labels.max()}, Fashion-MNIST's are 0 to {len(CLASS_NAMES) - 1}"
        )
    return images, labels
