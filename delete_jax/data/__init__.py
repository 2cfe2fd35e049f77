"""Images in, arrays out: datasets, class splits and on-device augmentation.

Importing this package imports neither TFDS nor scikit-learn nor PIL: only loading a dataset that needs them does.
"""

from delete_jax.data.dataset import IGNORE, Dataset, Split, forget_remain, split_digest
from delete_jax.data.faces import Faces, load_faces
from delete_jax.data.loading import KINDS, Kind, load
from delete_jax.data.records import Records
from delete_jax.data.splits import missing
from delete_jax.data.transforms import augmentation, normalize, paired_augmentation

__all__ = [
    "IGNORE",
    "KINDS",
    "Dataset",
    "Faces",
    "Kind",
    "Records",
    "Split",
    "augmentation",
    "forget_remain",
    "load",
    "load_faces",
    "missing",
    "normalize",
    "paired_augmentation",
    "split_digest",
]
