"""Images in, arrays out: datasets, class splits, on-device augmentation and deterministic epochs.

Importing this package imports neither TFDS nor scikit-learn nor PIL: they are needed only by the datasets that use them.
"""

from delete_jax.data.dataset import Dataset, Split, forget_remain, split_digest
from delete_jax.data.epochs import epoch_indices
from delete_jax.data.loading import load
from delete_jax.data.transforms import augmentation, normalize

__all__ = [
    "Dataset",
    "Split",
    "augmentation",
    "epoch_indices",
    "forget_remain",
    "load",
    "normalize",
    "split_digest",
]
