"""DeepLabV3+ (Chen et al., ECCV 2018, arXiv 1802.02611): a dilated ResNet, atrous pyramid pooling, and a decoder."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.models.layers import BatchNorm, Mark
from delete_jax.models.network import Network
from delete_jax.models.resnet import Block, conv

ATROUS_RATES = {8: (12, 24, 36), 16: (6, 12, 18)}  # by output stride


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with four times as many channels at the end, and a shortcut (arXiv 1512.03385)."""

    features: int
    stride: int = 1
    dilation: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        shortcut = x
        y = _conv_bn_relu(x, train, self.features, 1, self.dtype, "1")
        y = _conv_bn_relu(y, train, self.features, 3, self.dtype, "2", self.stride, self.dilation)
        y = _conv_bn(y, train, 4 * self.features, 1, self.dtype, "3")
        if x.shape != y.shape:
            shortcut = _conv_bn(x, train, 4 * self.features, 1, self.dtype, "_shortcut", self.stride)
        return nn.relu(shortcut + y)


class DeepLabV3Plus(nn.Module):
    """Images `[b, h, w, c]`, normalised, of any size -> logits `[b, h, w, num_classes]`.

    Attributes:
      num_classes: k.
      block: `resnet.Block` or `Bottleneck`.
      stages, features: blocks and channels of each of the four stages (three for the small network).
      stem: (size, stride) of the first convolution and whether a 3x3 pooling of stride 2 follows.
      output_stride: image pixels per position of the last stage: 8 or 16; later stages are dilated in place of strides.
      atrous_rates: of the pyramid's 3x3 convolutions.
      pyramid_features, low_features: channels of pyramid and decoder, and of the early stage that the decoder sees.
      dtype: of the computation; parameters, statistics and logits stay float32.
    """

    num_classes: int
    block: type[nn.Module]
    stages: Sequence[int]
    features: Sequence[int]
    stem: tuple[int, int, bool] = (7, 2, True)
    output_stride: int = 16
    atrous_rates: Sequence[int] = ATROUS_RATES[16]
    pyramid_features: int = 256
    low_features: int = 48
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        size, dtype = x.shape[1:3], self.dtype
        kernel, stride, pool = self.stem
        x = _conv_bn_relu(x.astype(dtype), train, self.features[0], kernel, dtype, "_stem", stride)
        if pool:
            x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
            stride *= 2
        low, dilation = x, 1
        for stage, (blocks, features) in enumerate(zip(self.stages, self.features, strict=True)):
            step, before = 2 if stage else 1, dilation
            if stride * step > self.output_stride:  # keep the resolution and look further instead
                dilation, step = dilation * step, 1
            stride *= step
            for i in range(blocks):  # the first block of a dilated stage still looks as near as the stage before
                arguments = (features, 1 if i else step, dilation if i else before, dtype)
                x = self.block(*arguments, name=f"layer{stage + 1}_{i}")(x, train)
            x = Mark(name=f"layer{stage + 1}")(x)
            if stage == 0:
                low = x
        x = self._pyramid(x, train)
        x = _resize(x, low.shape[1:3])
        low = _conv_bn_relu(low, train, self.low_features, 1, dtype, "_low")
        x = jnp.concatenate([x, low], -1)
        x = _conv_bn_relu(x, train, self.pyramid_features, 3, dtype, "_decoder1")
        x = _conv_bn_relu(x, train, self.pyramid_features, 3, dtype, "_decoder2")
        wide = np.promote_types(dtype, jnp.float32)
        return _resize(nn.Conv(self.num_classes, (1, 1), dtype=wide, name="classifier")(x.astype(wide)), size)

    def _pyramid(self, x: jax.Array, train: bool) -> jax.Array:
        """The same position at several scales, and the whole image."""
        features, dtype = self.pyramid_features, self.dtype
        branches = [_conv_bn_relu(x, train, features, 1, dtype, "_aspp0")]
        for i, rate in enumerate(self.atrous_rates):
            branches.append(_conv_bn_relu(x, train, features, 3, dtype, f"_aspp{i + 1}", 1, rate))
        whole = _conv_bn_relu(jnp.mean(x, (1, 2), keepdims=True), train, features, 1, dtype, "_aspp_image")
        branches.append(jnp.broadcast_to(whole, (*x.shape[:3], features)))
        return _conv_bn_relu(jnp.concatenate(branches, -1), train, features, 1, dtype, "_aspp_out")


def _conv_bn(
    x: jax.Array, train: bool, features: int, size: int, dtype: jnp.dtype, name: str, stride: int = 1, dilation: int = 1
) -> jax.Array:
    x = conv(features, size, stride, dtype, f"conv{name}", dilation)(x)
    return BatchNorm(dtype=dtype, name=f"bn{name}")(x, train)


def _conv_bn_relu(x: jax.Array, train: bool, *arguments) -> jax.Array:
    return nn.relu(_conv_bn(x, train, *arguments))


def _resize(x: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Bilinear, with the corners' pixels as areas (PyTorch's align_corners=False)."""
    return jax.image.resize(x, (x.shape[0], *size, x.shape[-1]), "bilinear")


def deeplab(num_classes: int, depth: int, output_stride: int, dtype: jnp.dtype = jnp.float32) -> DeepLabV3Plus:
    """DeepLabV3+ on a ResNet of 18, 50 or 101 layers, for photographs of 200 pixels and more."""
    stages = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth]
    return DeepLabV3Plus(
        num_classes,
        block=Block if depth == 18 else Bottleneck,
        stages=stages,
        features=(64, 128, 256, 512),
        output_stride=output_stride,
        atrous_rates=ATROUS_RATES[output_stride],
        dtype=dtype,
    )


def deeplab_small(num_classes: int, dtype: jnp.dtype = jnp.float32) -> DeepLabV3Plus:
    """DeepLabV3+ with three narrow stages, for images of 48 to 96 pixels: 0.1 M parameters; trains on a CPU."""
    return DeepLabV3Plus(
        num_classes,
        block=Block,
        stages=(1, 1, 1),
        features=(16, 32, 48),
        stem=(3, 2, False),
        output_stride=8,
        atrous_rates=(2, 4),
        pyramid_features=32,
        low_features=16,
        dtype=dtype,
    )


def row(factory: Callable[..., DeepLabV3Plus], stages: int) -> Network:
    """The row of a DeepLab network."""
    return Network(factory, "classifier", answers="pixel", layers=tuple(f"layer{i + 1}" for i in range(stages)))


ROWS = {"deeplab_small": row(deeplab_small, 3)} | {
    f"deeplab_resnet{depth}{suffix}": row(functools.partial(deeplab, depth=depth, output_stride=stride), 4)
    for depth in (18, 50, 101)
    for stride, suffix in ((16, ""), (8, "_os8"))
}
