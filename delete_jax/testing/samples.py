"""Tiny networks and data: what is checked is the method or the task, and each run takes a fraction of a second."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.data.dataset import IGNORE
from delete_jax.model import Model, Variables
from delete_jax.models import BatchNorm, from_linen
from delete_jax.parallel import run_key

NUM_CLASSES, SIZE = 4, 6


class Net(nn.Module):
    """One answer per image: convolution, batch norm, mean, linear."""

    num_classes: int = NUM_CLASSES
    features: int = 8

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Conv(self.features, (3, 3), padding=1, use_bias=False, param_dtype=x.dtype)(x)
        x = nn.relu(BatchNorm()(x, train))
        return nn.Dense(self.num_classes, param_dtype=x.dtype)(jnp.mean(x, (1, 2)))


class Segmenter(nn.Module):
    """One answer per pixel."""

    num_classes: int = NUM_CLASSES

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.relu(BatchNorm()(nn.Conv(8, (3, 3), padding=1)(x), train))
        return nn.Conv(self.num_classes, (1, 1))(x)


def samples(
    n: int = 64, seed: int = 0, num_classes: int = NUM_CLASSES, size: int = SIZE
) -> tuple[np.ndarray, np.ndarray]:
    """Images float32 `[n, size, size, 1]` that are brighter in one corner per class, labels int32 `[n]`."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % num_classes
    images = rng.normal(0, 0.5, (n, size, size, 1))
    for i, label in enumerate(labels):
        row, column = divmod(int(label), 2)
        images[i, 3 * row % size : 3 * row % size + 3, 3 * column : 3 * column + 3] += 1.5
    return images.astype(np.float32), labels.astype(np.int32)


def label_maps(n: int, forget: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Images float32 `[n, 6, 6, 1]` with maps int32 `[n, 6, 6]`: the classes of `forget` are in the second half alone, and some
    pixels do not count."""
    images, _ = samples(n)
    labels = np.random.default_rng(0).integers(0, NUM_CLASSES, images.shape[:3]).astype(np.int32)
    first = labels[: n // 2]
    first[np.isin(first, forget)] = next(class_ for class_ in range(NUM_CLASSES) if class_ not in forget)
    labels[:, 0, 0] = IGNORE
    return images, labels


def network(module: nn.Module | None = None, seed: int = 0, size: int = SIZE) -> tuple[Model, Variables]:
    """A model and its untrained variables, for images `[n, size, size, 1]`; `Net` if no module is given."""
    module = module or Net()
    return from_linen(module), _initial(module, size, seed)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _initial(module: nn.Module, size: int, seed: int) -> Variables:
    return dict(module.init(run_key(seed), jnp.zeros((1, size, size, 1), jnp.float32), train=False))
