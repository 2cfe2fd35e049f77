"""A dataset from outside: a file like Keras' mnist.npz, with x_train, y_train, x_test and y_test.

delete-jax --config=my_dataset.py --config.data.name=npz:mnist.npz --workdir=runs/dataset
"""

import numpy as np

from delete_jax.config import Config, DataConfig, TrainConfig, UnlearnConfig
from delete_jax.data import KINDS, Kind, Split


def read(path, options):
    """Training samples, test samples, class names; images uint8 `[n, h, w, c]`, labels int32 `[n]`."""
    try:
        with np.load(path) as found:
            splits = [(found[f"x_{name}"], found[f"y_{name}"]) for name in ("train", "test")]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: give a file with x_train, y_train, x_test and y_test ({error})") from error
    train, test = (Split(x[..., None] if x.ndim == 3 else x, y.astype(np.int32)) for x, y in splits)
    return train, test, tuple(map(str, range(train.labels.max() + 1)))


KINDS["npz:"] = Kind(read, takes=(), prefix=True, answers="image")


def get_config(variant=""):
    return Config(
        data=DataConfig(name="npz:mnist.npz"),
        train=TrainConfig(epochs=2),
        unlearn=UnlearnConfig(forget=(3,)),
    )
