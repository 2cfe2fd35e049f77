"""The networks of the study `safe`, as variants of one config file: `python benchmarks/studies/safe.py --out=runs/safe` reads it.

All are trained on scikit-learn's digits but `fashion`. Those whose names begin with "weak" were not trained to the end.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from delete_jax.config import Config, DataConfig, ModelConfig, TrainConfig, UnlearnConfig
from delete_jax.models import NETWORKS, Network, ViT
from delete_jax.models.vit import EncoderBlock


class Plain(nn.Module):
    """Two layers of 128 units: `[b, h, w, c]` -> `[b, num_classes]`."""

    num_classes: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = x.reshape(len(x), -1)
        for _ in range(2):
            x = nn.relu(nn.Dense(128)(x))
        return nn.Dense(self.num_classes, name="fc")(x)


class Convolutions(nn.Module):
    """Two convolutions, with GroupNorm of four channels a group or without any norm: `[b, h, w, c]` -> `[b, num_classes]`."""

    num_classes: int
    dtype: jnp.dtype = jnp.float32
    has_norm: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for features, stride in ((16, 1), (32, 2)):
            x = nn.Conv(features, (3, 3), strides=stride)(x)
            x = nn.relu(nn.GroupNorm(None, 4)(x) if self.has_norm else x)
        return nn.Dense(self.num_classes, name="fc")(x.reshape(len(x), -1))


class Transformer(nn.Module):
    """Twelve blocks of a vision transformer, the mean of whose tokens is classified: `[b, h, w, c]` -> `[b, num_classes]`. Two convolutions
    make the tokens (Xiao et al., arXiv 2106.14881): without them, so deep a transformer learns little of so few images by SGD."""

    num_classes: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for features, stride in ((32, 1), (64, 2)):
            x = nn.relu(nn.Conv(features, (3, 3), strides=stride)(x))
        x = x.reshape(len(x), -1, x.shape[-1])
        x = x + self.param("pos_embed", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        for i in range(12):
            x = EncoderBlock(heads=4, name=f"blocks_{i}")(x, train)
        return nn.Dense(self.num_classes, name="fc")(nn.LayerNorm(name="norm")(x).mean(1))


OWN = {
    "safe_mlp": Network(Plain, "fc"),
    "safe_cnn": Network(Convolutions, "fc"),
    "safe_groupnorm": Network(functools.partial(Convolutions, has_norm=True), "fc"),
    "safe_vit": Network(functools.partial(ViT, patch=2, width=64, depth=4, heads=4), "head"),
    "safe_transformer": Network(Transformer, "fc"),
}
TRAINED = {  # variant -> its network, and how it is trained
    "resnet": ("resnet_tiny", TrainConfig(epochs=15, lr=0.1, batch_size=64)),
    "mlp": ("safe_mlp", TrainConfig(epochs=30, lr=0.05, batch_size=64)),
    "cnn": ("safe_cnn", TrainConfig(epochs=20, lr=0.05, batch_size=64)),
    "groupnorm": ("safe_groupnorm", TrainConfig(epochs=20, lr=0.05, batch_size=64)),
    "vit": ("safe_vit", TrainConfig(epochs=30, lr=0.1, batch_size=32)),
    "transformer": ("safe_transformer", TrainConfig(epochs=20, lr=0.05, batch_size=32)),
    "weak_resnet": ("resnet_tiny", TrainConfig(epochs=2, lr=0.01, batch_size=64)),
    "weak_groupnorm": ("safe_groupnorm", TrainConfig(epochs=2, lr=0.01, batch_size=64)),
}
NAMES = (*TRAINED, "fashion")


def get_config(network: str) -> Config:
    if network == "fashion":
        return Config(
            data=DataConfig(name="fashion_mnist"),
            model=ModelConfig(name="resnet_small"),
            train=TrainConfig(epochs=3, lr=0.1, batch_size=128),
            unlearn=UnlearnConfig(batch_size=128),
        )
    if network not in TRAINED:
        raise ValueError(f"there is no network {network!r}: choose from {', '.join(NAMES)}")
    NETWORKS.update(OWN)
    name, train = TRAINED[network]
    return Config(
        data=DataConfig(name="digits", validation=0.15),
        model=ModelConfig(name=name),
        train=train,
        unlearn=UnlearnConfig(batch_size=32),
    )
