"""From a name to a dataset."""

from __future__ import annotations

from delete_jax.data import tfds_dirs
from delete_jax.data.dataset import Dataset, hold_out, pixel_statistics
from delete_jax.data.folder import read_folder

_FOLDER = "folder:"


def load(
    name: str,
    *,
    data_dir: str | None = None,
    source: str | None = None,
    validation: float = 0.1,
    seed: int = 0,
) -> Dataset:
    """Loads a dataset into host memory.

    Args:
        name: "digits" (scikit-learn's, prepared on first use), "fashion_mnist" (prepared on first use from IDX files),
            "cifar10", "cifar100" (prepared by TFDS as array_record files) or "folder:PATH"
            (`PATH/train/CLASS/*.png` and `PATH/test/CLASS/*.png`, also jpg and jpeg).
        data_dir: the root of the prepared TFDS datasets; None: the environment's `DELETE_JAX_DATA_DIR`, else that of
            TFDS (`TFDS_DATA_DIR` or `~/tensorflow_datasets`).
        source: for "fashion_mnist", the folder with the four IDX files, read when nothing is prepared; None:
            `/usr/share/datasets/fashion-mnist`.
        validation: the fraction of every class's training samples to hold out, in [0, 1); a class of two samples or
            more gives at least one. 0: none.
        seed: decides which ones; not negative.

    Returns:
        The dataset, its samples in a fixed order.

    Raises:
        ValueError: an argument is not allowed, or the data is missing or damaged; one line that says what to do.
    """
    if not 0 <= validation < 1:
        raise ValueError(f"validation={validation}: give the fraction of the training samples to hold out, in [0, 1)")
    if seed < 0:
        raise ValueError(f"seed={seed}: give an integer from 0")
    if source is not None and name != "fashion_mnist":
        raise ValueError(f"source={source!r}: only fashion_mnist has one, not {name}; leave it out")
    if name.startswith(_FOLDER):
        train, test, class_names = read_folder(name.removeprefix(_FOLDER))
    elif name in tfds_dirs.NAMES:
        train, test, class_names = tfds_dirs.read_prepared(tfds_dirs.prepared_dir(name, data_dir, source))
    else:
        raise ValueError(f"unknown dataset {name!r}: give one of {', '.join(tfds_dirs.NAMES)} or {_FOLDER}PATH")
    train, held_out = hold_out(train, validation, seed)
    return Dataset(name, train, held_out, test, class_names, *pixel_statistics(train.images))
