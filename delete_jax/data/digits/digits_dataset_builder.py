"""TFDS builder for scikit-learn's digits: 1797 handwritten digits of 8x8 pixels; needs no network."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from delete_jax.data.digits import CLASS_NAMES


# Not registered: the registry of TFDS is shared, and this builder is only ever made by its class.
class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Digits, 80 % train and 20 % test, stratified by class and fixed."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits of 8x8 pixels, as they come with scikit-learn (UCI optdigits, test part).",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1)),
                    "label": tfds.features.ClassLabel(names=CLASS_NAMES),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)  # scikit-learn's values are 0 to 16
        train, test = train_test_split(np.arange(len(images)), test_size=0.2, random_state=0, stratify=digits.target)
        return {
            "train": self._generate_examples(images, digits.target, train),
            "test": self._generate_examples(images, digits.target, test),
        }

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray, chosen: Any
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        from PIL import Image

        for i in sorted(int(i) for i in chosen):
            png = io.BytesIO()  # encoded here, because TFDS would encode an array with TensorFlow
            Image.fromarray(images[i]).save(png, "PNG")
            yield i, {"image": png.getvalue(), "label": int(labels[i])}
