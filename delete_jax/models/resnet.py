"""Residual networks (He et al., arXiv 1512.03385) with 3x3 stems, for images of 8 to 64 pixels, and ImageNet's 7x7 stem."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.models.layers import BatchNorm, Mark, recomputed
from delete_jax.models.network import Network


class Block(nn.Module):
    """A residual block of two 3x3 convolutions. The shortcut is projected if the shape changes."""

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


class Bottleneck(nn.Module):
    """A residual block of 1x1, 3x3 and 1x1 convolutions; the last has four times as many channels. The 3x3 convolution has
    the stride, as in PyTorch's networks (version 1.5)."""

    features: int
    stride: int = 1
    dilation: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        shortcut = x
        y = conv_bn_relu(x, train, self.features, 1, self.dtype, "1")
        y = conv_bn_relu(y, train, self.features, 3, self.dtype, "2", self.stride, self.dilation)
        y = conv_bn(y, train, 4 * self.features, 1, self.dtype, "3")
        if x.shape != y.shape:
            shortcut = conv_bn(x, train, 4 * self.features, 1, self.dtype, "_shortcut", self.stride)
        return nn.relu(shortcut + y)


class ResNet(nn.Module):
    """Images `[b, h, w, c]`, normalised, -> logits `[b, num_classes]`.

    Attributes:
      num_classes: the number of classes, k.
      stages: blocks per stage; each stage after the first halves the resolution.
      features: channels per stage. The stem has as many as the first stage.
      stem_stride: stride of the 3x3 stem; 1 is the CIFAR stem.
      imagenet_stem: use a 7x7 convolution and a 3x3 pooling, both of stride 2, instead of the 3x3 stem.
      block: `Block` or `Bottleneck`.
      dtype: of the computation. Parameters, statistics and logits stay float32.
      remat: recompute the blocks' activations in the backward pass: about a third more time, much less memory.
    """

    num_classes: int
    stages: Sequence[int]
    features: Sequence[int]
    stem_stride: int = 1
    imagenet_stem: bool = False
    block: type[nn.Module] = Block
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        size, stride = (7, 2) if self.imagenet_stem else (3, self.stem_stride)
        x = conv_bn_relu(x.astype(self.dtype), train, self.features[0], size, self.dtype, "1", stride)
        if self.imagenet_stem:
            x = max_pool(x)
        x = Mark(name="stem")(x)
        make = recomputed(self.block, self.remat)
        for stage, (blocks, features) in enumerate(zip(self.stages, self.features, strict=True)):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                x = make(features, stride, dtype=self.dtype, name=f"layer{stage + 1}_{block}")(x, train)
            x = Mark(name=f"layer{stage + 1}")(x)
        wide = np.promote_types(self.dtype, jnp.float32)
        return nn.Dense(self.num_classes, dtype=wide, name="fc")(jnp.mean(x, axis=(1, 2), dtype=wide))


def conv(features: int, size: int, stride: int, dtype: jnp.dtype, name: str, dilation: int = 1) -> nn.Conv:
    """Returns a convolution without bias that keeps the resolution but for its stride, padded as PyTorch does: both sides alike,
    which "SAME" with stride 2 would not."""
    init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
    return nn.Conv(
        features, (size, size), stride, padding=dilation * (size // 2), kernel_dilation=dilation, use_bias=False,
        dtype=dtype, kernel_init=init, name=name,
    )  # fmt: skip


def conv_bn(
    x: jax.Array, train: bool, features: int, size: int, dtype: jnp.dtype, name: str, stride: int = 1, dilation: int = 1
) -> jax.Array:
    """Applies a convolution, `"conv" + name`, and its batch normalisation, `"bn" + name`."""
    x = conv(features, size, stride, dtype, f"conv{name}", dilation)(x)
    return BatchNorm(dtype=dtype, name=f"bn{name}")(x, train)


def conv_bn_relu(x: jax.Array, train: bool, *arguments) -> jax.Array:
    """Applies `conv_bn` and rectifies the result."""
    return nn.relu(conv_bn(x, train, *arguments))


def max_pool(x: jax.Array) -> jax.Array:
    """Takes the largest of 3x3 positions, at every other position; padded on both sides alike, as PyTorch does."""
    return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))


def resnet_tiny(num_classes: int, dtype: jnp.dtype = jnp.float32) -> ResNet:
    """Three stages of one block, 16 to 64 channels: 78 k parameters; for images of 8 to 16 pixels, trains on a CPU."""
    return ResNet(num_classes, stages=(1, 1, 1), features=(16, 32, 64), dtype=dtype)


def resnet_small(num_classes: int, dtype: jnp.dtype = jnp.float32) -> ResNet:
    """The tiny network with a stem of stride 2, for images of 28 to 64 pixels: a quarter of the operations."""
    return ResNet(num_classes, stages=(1, 1, 1), features=(16, 32, 64), stem_stride=2, dtype=dtype)


def resnet18(num_classes: int, dtype: jnp.dtype = jnp.float32) -> ResNet:
    """ResNet-18 with the CIFAR stem (3x3, stride 1, no pooling): 11 M parameters."""
    return ResNet(num_classes, stages=(2, 2, 2, 2), features=(64, 128, 256, 512), dtype=dtype)


def resnet(num_classes: int, depth: int, imagenet_stem: bool, dtype: jnp.dtype = jnp.float32) -> ResNet:
    """ResNet of 18, 34, 50 or 101 layers; "_imagenet": with the stem for photographs of 200 pixels, else CIFAR's."""
    block, stages = DEPTHS[depth]
    return ResNet(
        num_classes, stages, features=(64, 128, 256, 512), imagenet_stem=imagenet_stem, block=block, dtype=dtype
    )


def row(factory: Callable[..., ResNet], stages: int) -> Network:
    """Makes the row of a residual network."""
    return Network(factory, classifier="fc", layers=("stem", *(f"layer{i + 1}" for i in range(stages))))


DEPTHS: dict[int, tuple[type[nn.Module], tuple[int, ...]]] = {
    18: (Block, (2, 2, 2, 2)),
    34: (Block, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}
ROWS = {"resnet_tiny": row(resnet_tiny, 3), "resnet_small": row(resnet_small, 3), "resnet18": row(resnet18, 4)} | {
    f"resnet{depth}{suffix}": row(functools.partial(resnet, depth=depth, imagenet_stem=bool(suffix)), 4)
    for suffix in ("", "_imagenet")
    for depth in DEPTHS
    if suffix or depth != 18
}
