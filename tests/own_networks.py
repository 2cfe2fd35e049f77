"""A config file that brings its networks: nothing in them is called, built or sown as in the package.

Variants: classification (the default), faces, and segmentation.
"""

import flax.linen as nn
import jax.numpy as jnp

from delete_jax.config import Config, DataConfig, ModelConfig, TrainConfig, UnlearnConfig
from delete_jax.models import NETWORKS, BatchNorm, Network
from delete_jax.tasks import Faces, Segmentation


class Encoder(nn.Module):
    """Two convolutions, the second at half the resolution."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(BatchNorm()(nn.Conv(12, (3, 3), use_bias=False)(x), train))
        return nn.relu(BatchNorm(name="last")(nn.Conv(24, (3, 3), 2, use_bias=False)(x), train))


class Tagger(nn.Module):
    """One answer per image."""

    num_classes: int

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(self.num_classes, name="head")(jnp.mean(Encoder(name="trunk")(x, train), (1, 2)))


class Painter(nn.Module):
    """One answer per pixel."""

    num_classes: int

    @nn.compact
    def __call__(self, x, train):
        y = nn.ConvTranspose(24, (2, 2), (2, 2), name="up")(Encoder(name="trunk")(x, train))
        return nn.Conv(self.num_classes, (1, 1), name="head")(nn.relu(y))


NETWORKS["tagger"] = Network(lambda num_classes, dtype: Tagger(num_classes), "head", layers=("trunk",))
NETWORKS["painter"] = Network(lambda num_classes, dtype: Painter(num_classes), "head", answers="pixel")


def get_config(variant=""):
    config = Config(
        data=DataConfig(name="digits", validation=0.3),
        model=ModelConfig(name="tagger"),
        train=TrainConfig(epochs=12, lr=0.1, batch_size=64),
        unlearn=UnlearnConfig(forget=(3,), epochs=6, lr=1e-2, batch_size=32),
    )
    if variant == "faces":
        config.task = Faces(pretrain=8, people=4, unseen=3, train_images=24, test_images=8, epochs=8, lr=0.05)
        config.data.name, config.data.size = "faces:drawn", 16
        config.train.batch_size = config.unlearn.batch_size = 8
        config.train.epochs = 4
    elif variant == "segmentation":
        config.task, config.data.name, config.model.name = Segmentation(), "scenes", "painter"
        config.train.batch_size = config.unlearn.batch_size = 8
    return config
