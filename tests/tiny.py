"""Tiny networks and data for tests."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import delete_jax as dj
from delete_jax import data, models
from delete_jax.data import Split
from delete_jax.data.dataset import Dataset, pixel_statistics
from delete_jax.models import BatchNorm, Network, ResNet

NUM_CLASSES = 4


class Net(nn.Module):
    """Convolution, batch norm, mean, linear."""

    num_classes: int = NUM_CLASSES
    features: int = 8

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Conv(self.features, (3, 3), padding=1, use_bias=False, param_dtype=x.dtype)(x)
        x = nn.relu(BatchNorm()(x, train))
        return nn.Dense(self.num_classes, param_dtype=x.dtype)(jnp.mean(x, (1, 2)))


class Segmenter(nn.Module):
    """One logit vector per pixel."""

    num_classes: int = NUM_CLASSES

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.relu(BatchNorm()(nn.Conv(8, (3, 3), padding=1)(x), train))
        return nn.Conv(self.num_classes, (1, 1))(x)


def samples(n: int = 64, seed: int = 0, num_classes: int = NUM_CLASSES, size: int = 6):
    """Images float32 `[n, size, size, 1]` that are brighter in one corner per class, labels int32 `[n]`."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % num_classes
    images = rng.normal(0, 0.5, (n, size, size, 1))
    for i, label in enumerate(labels):
        row, column = divmod(int(label), 2)
        images[i, 3 * row % size : 3 * row % size + 3, 3 * column : 3 * column + 3] += 1.5
    return images.astype(np.float32), labels.astype(np.int32)


def network(module: nn.Module | None = None, seed: int = 0, size: int = 6):
    """A model and its untrained variables."""
    module = module or Net()
    return dj.models.from_linen(module), _initial(module, size, seed)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _initial(module: nn.Module, size: int, seed):
    return module.init(jax.random.key(seed), jnp.zeros((1, size, size, 1), jnp.float32), train=False)


def small_runs(monkeypatch) -> None:
    """Runs of the command in this process load four classes of tiny images, and "resnet_tiny" has one narrow stage."""

    def split(n, seed):
        images, labels = samples(n, seed)
        return Split((60 * images + 100).clip(0, 255).astype(np.uint8), labels)

    net = functools.partial(ResNet, stages=(1,), features=(8,))
    monkeypatch.setitem(models.NETWORKS, "resnet_tiny", Network(net, "fc", layers=("layer1",)))
    train = split(64, 0)
    dataset = Dataset("corners", train, split(16, 1), split(32, 2), tuple("abcd"), *pixel_statistics(train.images))
    monkeypatch.setattr(data, "load", lambda name, **_: dataset)
