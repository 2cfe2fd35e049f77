"""Images in, arrays out: datasets, class splits and on-device augmentation.

Importing this package imports neither TFDS nor scikit-learn nor PIL: only loading a dataset that needs them does.
"""

from delete_jax.data.dataset import Dataset, Split, forget_remain, split_digest
from delete_jax.data.loading import load
from delete_jax.data.transforms import augmentation, normalize, paired_augmentation

__all__ = [
    "Dataset",
    "Split",
    "augmentation",
    "forget_remain",
    "load",
    "normalize",
    "paired_augmentation",
    "split_digest",
]
