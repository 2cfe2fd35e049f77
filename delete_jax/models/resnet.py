"""Residual networks (He et al., arXiv 1512.03385) with 3x3 stems, for images of 8 to 64 pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.models.layers import BatchNorm, Mark
from delete_jax.models.network import Network


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected where the shape changes."""

    features: int
    stride: int = 1
    dilation: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        shortcut = x
        y = conv(self.features, 3, self.stride, self.dtype, "conv1", self.dilation)(x)
        y = nn.relu(BatchNorm(dtype=self.dtype, name="bn1")(y, train))
        y = conv(self.features, 3, 1, self.dtype, "conv2", self.dilation)(y)
        y = BatchNorm(dtype=self.dtype, name="bn2")(y, train)
        if x.shape != y.shape:
            shortcut = conv(self.features, 1, self.stride, self.dtype, "shortcut_conv")(x)
            shortcut = BatchNorm(dtype=self.dtype, name="shortcut_bn")(shortcut, train)
        return nn.relu(shortcut + y)


class ResNet(nn.Module):
    """Images `[b, h, w, c]`, normalised, -> logits `[b, num_classes]`.

    Attributes:
      num_classes: k.
      stages: blocks per stage; each stage after the first halves the resolution.
      features: channels per stage; the stem has as many as the first.
      stem_stride: stride of the 3x3 stem; 1 is the CIFAR stem.
      dtype: of the computation; parameters, statistics and logits stay float32.
    """

    num_classes: int
    stages: Sequence[int]
    features: Sequence[int]
    stem_stride: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = conv(self.features[0], 3, self.stem_stride, self.dtype, "conv1")(x.astype(self.dtype))
        x = nn.relu(BatchNorm(dtype=self.dtype, name="bn1")(x, train))
        x = Mark(name="stem")(x)
        for stage, (blocks, features) in enumerate(zip(self.stages, self.features, strict=True)):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                x = Block(features, stride, dtype=self.dtype, name=f"layer{stage + 1}_{block}")(x, train)
            x = Mark(name=f"layer{stage + 1}")(x)
        x = jnp.mean(x, axis=(1, 2), dtype=np.promote_types(self.dtype, jnp.float32))
        return nn.Dense(self.num_classes, name="fc")(x)


def conv(features: int, size: int, stride: int, dtype: jnp.dtype, name: str, dilation: int = 1) -> nn.Conv:
    """A convolution without bias that keeps the resolution but for its stride, padded as PyTorch does: both sides alike,
    which "SAME" with stride 2 would not."""
    init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
    return nn.Conv(
        features, (size, size), stride, padding=dilation * (size // 2), kernel_dilation=dilation, use_bias=False,
        dtype=dtype, kernel_init=init, name=name,
    )  # fmt: skip


def resnet_tiny(num_classes: int, dtype: jnp.dtype = jnp.float32) -> ResNet:
    """Three stages of one block, 16 to 64 channels: 78 k parameters; for images of 8 to 16 pixels, trains on a CPU."""
    return ResNet(num_classes, stages=(1, 1, 1), features=(16, 32, 64), dtype=dtype)


def resnet_small(num_classes: int, dtype: jnp.dtype = jnp.float32) -> ResNet:
    """The tiny network with a stem of stride 2, for images of 28 to 64 pixels: a quarter of the operations."""
    return ResNet(num_classes, stages=(1, 1, 1), features=(16, 32, 64), stem_stride=2, dtype=dtype)


def resnet18(num_classes: int, dtype: jnp.dtype = jnp.float32) -> ResNet:
    """ResNet-18 with the CIFAR stem (3x3, stride 1, no pooling): 11 M parameters."""
    return ResNet(num_classes, stages=(2, 2, 2, 2), features=(64, 128, 256, 512), dtype=dtype)


def row(factory: Callable[..., ResNet], stages: int) -> Network:
    """The row of a residual network."""
    return Network(factory, classifier="fc", layers=("stem", *(f"layer{i + 1}" for i in range(stages))))


ROWS = {"resnet_tiny": row(resnet_tiny, 3), "resnet_small": row(resnet_small, 3), "resnet18": row(resnet18, 4)}
