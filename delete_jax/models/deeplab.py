"""DeepLabV3 (Chen et al., arXiv 1706.05587) and V3+ (ECCV 2018, arXiv 1802.02611): a dilated ResNet and atrous pyramid
pooling; V3+ adds a decoder, which sees an early stage."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.models.layers import Mark, recomputed
from delete_jax.models.network import Network
from delete_jax.models.resnet import DEPTHS, Block, conv_bn_relu, max_pool

ATROUS_RATES = {8: (12, 24, 36), 16: (6, 12, 18)}  # by output stride


class DeepLab(nn.Module):
    """What V3 and V3+ have in common.

    Attributes:
      num_classes: the number of classes, k.
      block: `resnet.Block` or `resnet.Bottleneck`.
      stages, features: blocks and channels of each of the four stages (three for the small network).
      stem: (size, stride) of the first convolution and whether a 3x3 pooling of stride 2 follows.
      output_stride: image pixels per position of the last stage: 8 or 16; later stages are dilated in place of strides.
      atrous_rates: of the pyramid's 3x3 convolutions.
      pyramid_features: channels of the pyramid and of what follows.
      dtype: of the computation. Parameters, statistics and logits stay float32.
      remat: compute the ResNet's blocks' activations again in the backward pass: about a third more time, much less memory.
    """

    num_classes: int
    block: type[nn.Module]
    stages: Sequence[int]
    features: Sequence[int]
    stem: tuple[int, int, bool] = (7, 2, True)
    output_stride: int = 16
    atrous_rates: Sequence[int] = ATROUS_RATES[16]
    pyramid_features: int = 256
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    def _backbone(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """Outputs of the first and of the last stage."""
        kernel, stride, pool = self.stem
        x = conv_bn_relu(x.astype(self.dtype), train, self.features[0], kernel, self.dtype, "_stem", stride)
        if pool:
            x = max_pool(x)
            stride *= 2
        make = recomputed(self.block, self.remat)
        low, dilation = x, 1
        for stage, (blocks, features) in enumerate(zip(self.stages, self.features, strict=True)):
            step, before = 2 if stage else 1, dilation
            if stride * step > self.output_stride:  # keep the resolution and look further instead
                dilation, step = dilation * step, 1
            stride *= step
            for i in range(blocks):  # the first block of a dilated stage still looks as near as the stage before
                arguments = (features, 1 if i else step, dilation if i else before, self.dtype)
                x = make(*arguments, name=f"layer{stage + 1}_{i}")(x, train)
            x = Mark(name=f"layer{stage + 1}")(x)
            if stage == 0:
                low = x
        return low, x

    def _pyramid(self, x: jax.Array, train: bool) -> jax.Array:
        """The same position at several scales, and the whole image."""
        features, dtype = self.pyramid_features, self.dtype
        branches = [conv_bn_relu(x, train, features, 1, dtype, "_aspp0")]
        for i, rate in enumerate(self.atrous_rates):
            branches.append(conv_bn_relu(x, train, features, 3, dtype, f"_aspp{i + 1}", 1, rate))
        whole = conv_bn_relu(jnp.mean(x, (1, 2), keepdims=True), train, features, 1, dtype, "_aspp_image")
        branches.append(jnp.broadcast_to(whole, (*x.shape[:3], features)))
        return conv_bn_relu(jnp.concatenate(branches, -1), train, features, 1, dtype, "_aspp_out")

    def _logits(self, x: jax.Array, size: tuple[int, ...]) -> jax.Array:
        wide = np.promote_types(self.dtype, jnp.float32)
        return _resize(nn.Conv(self.num_classes, (1, 1), dtype=wide, name="classifier")(x.astype(wide)), size)


class DeepLabV3(DeepLab):
    """Images `[b, h, w, c]`, normalised, of any size -> logits `[b, h, w, num_classes]`; torchvision's network.

    Attributes:
      dropout: rate on the pyramid's output, in training.
    """

    dropout: float = 0.5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        size = x.shape[1:3]
        x = self._pyramid(self._backbone(x, train)[1], train)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = conv_bn_relu(x, train, self.pyramid_features, 3, self.dtype, "_decoder")
        return self._logits(x, size)


class DeepLabV3Plus(DeepLab):
    """Images `[b, h, w, c]`, normalised, of any size -> logits `[b, h, w, num_classes]`.

    Attributes:
      low_features: channels of the first stage's output at the decoder.
    """

    low_features: int = 48

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        size, dtype = x.shape[1:3], self.dtype
        low, x = self._backbone(x, train)
        x = _resize(self._pyramid(x, train), low.shape[1:3])
        low = conv_bn_relu(low, train, self.low_features, 1, dtype, "_low")
        x = jnp.concatenate([x, low], -1)
        x = conv_bn_relu(x, train, self.pyramid_features, 3, dtype, "_decoder1")
        x = conv_bn_relu(x, train, self.pyramid_features, 3, dtype, "_decoder2")
        return self._logits(x, size)


def _resize(x: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Bilinear, with the corners' pixels as areas (PyTorch's align_corners=False)."""
    return jax.image.resize(x, (x.shape[0], *size, x.shape[-1]), "bilinear")


def deeplab(num_classes: int, depth: int, output_stride: int, dtype: jnp.dtype = jnp.float32) -> DeepLabV3Plus:
    """DeepLabV3+ on a ResNet of 18, 50 or 101 layers, for photographs of 200 pixels and more."""
    return _photographs(DeepLabV3Plus, num_classes, depth, output_stride, dtype)


def deeplab_v3(num_classes: int, depth: int, dtype: jnp.dtype = jnp.float32) -> DeepLabV3:
    """DeepLabV3 on a ResNet of 50 or 101 layers, output stride 8: torchvision's, for photographs of 200 pixels and more."""
    return _photographs(DeepLabV3, num_classes, depth, 8, dtype)


def _photographs(kind: type[DeepLab], num_classes: int, depth: int, output_stride: int, dtype: jnp.dtype):
    block, stages = DEPTHS[depth]
    return kind(
        num_classes,
        block,
        stages,
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


def row(factory: Callable[..., DeepLab], stages: int) -> Network:
    """Makes the row of a DeepLab network."""
    return Network(factory, "classifier", answers="pixel", layers=tuple(f"layer{i + 1}" for i in range(stages)))


ROWS = (
    {"deeplab_small": row(deeplab_small, 3)}
    | {
        f"deeplab_resnet{depth}{suffix}": row(functools.partial(deeplab, depth=depth, output_stride=stride), 4)
        for depth in (18, 50, 101)
        for stride, suffix in ((16, ""), (8, "_os8"))
    }
    | {f"deeplabv3_resnet{depth}": row(functools.partial(deeplab_v3, depth=depth), 4) for depth in (50, 101)}
)
