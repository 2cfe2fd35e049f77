"""A network from outside, for a class per image and for a class per pixel.

delete-jax --config=my_network.py --workdir=runs/network
"""

import flax.linen as nn
import jax.numpy as jnp

from delete_jax.config import Config, DataConfig, ModelConfig, TrainConfig, UnlearnConfig
from delete_jax.models import NETWORKS, BatchNorm, Network
from delete_jax.tasks import Classification, Segmentation


class Mine(nn.Module):
    """Two convolutions, the second at half the resolution."""

    num_classes: int
    per_pixel: bool = False

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(BatchNorm()(nn.Conv(12, (3, 3), use_bias=False)(x), train))
        x = nn.relu(BatchNorm(name="last")(nn.Conv(24, (3, 3), 2, use_bias=False)(x), train))
        x = nn.ConvTranspose(24, (2, 2), (2, 2), name="up")(x) if self.per_pixel else jnp.mean(x, (1, 2))
        return nn.Dense(self.num_classes, name="head")(x)


NETWORKS["mine"] = Network(lambda num_classes, dtype: Mine(num_classes), "head", layers=("last",))
NETWORKS["painter"] = Network(lambda num_classes, dtype: Mine(num_classes, True), "head", answers="pixel")


def get_config(variant=""):
    name, data, task = (
        ("painter", "scenes", Segmentation()) if variant == "maps" else ("mine", "digits", Classification())
    )
    return Config(
        task=task,
        data=DataConfig(name=data, validation=0.3),
        model=ModelConfig(name=name),
        train=TrainConfig(epochs=12, lr=0.1, batch_size=64),
        unlearn=UnlearnConfig(forget=(3,), method="delete", batch_norm="train", epochs=6, lr=1e-2, batch_size=32),
    )
