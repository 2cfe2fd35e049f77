"""From a name to a dataset."""

from __future__ import annotations

from delete_jax.data import scenes, tfds_dirs
from delete_jax.data.dataset import Dataset, hold_out, pixel_statistics
from delete_jax.data.folder import read_folder
from delete_jax.data.pets import read_pets
from delete_jax.data.voc import read_voc

_FOLDER, _VOC, _SCENES, _PETS = "folder:", "voc:", "scenes", "oxford_iiit_pet"


def load(
    name: str,
    *,
    data_dir: str | None = None,
    source: str | None = None,
    validation: float = 0.1,
    size: int = 256,
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
        size: in pixels, of the square that images of any size are brought to ("voc" and "oxford_iiit_pet").
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
    if source is not None and name not in ("fashion_mnist", _SCENES):
        raise ValueError(f"source={source!r}: only fashion_mnist and scenes have one, not {name}; leave it out")
    if size < 1:
        raise ValueError(f"size={size}: give the side of the images in pixels, at least 1")
    if name.startswith(_FOLDER):
        train, test, class_names = read_folder(name.removeprefix(_FOLDER))
    elif name in tfds_dirs.NAMES:
        train, test, class_names = tfds_dirs.read_prepared(tfds_dirs.prepared_dir(name, data_dir, source))
    elif name == _SCENES:
        train, test, _ = tfds_dirs.read_prepared(tfds_dirs.prepared_dir("fashion_mnist", data_dir, source))
        train = scenes.compose(train, scenes.NUM_TRAIN, seed=0)
        test = scenes.compose(test, scenes.NUM_TEST, seed=1)
        class_names = scenes.CLASS_NAMES
    elif name == _PETS:
        train, test, class_names = read_pets(tfds_dirs.prepared_dir(_PETS, data_dir, None), size)
    elif name.startswith(_VOC):
        train, test, class_names = read_voc(name.removeprefix(_VOC), size)
    else:
        known = ", ".join((*tfds_dirs.NAMES, _SCENES, _PETS, f"{_FOLDER}PATH"))
        raise ValueError(f"unknown dataset {name!r}: give one of {known} or {_VOC}PATH")
    train, held_out = hold_out(train, validation, seed)
    return Dataset(name, train, held_out, test, class_names, *pixel_statistics(train.images))
