"""VGG-16 with batch normalisation (Simonyan and Zisserman, arXiv 1409.1556)."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.models.layers import BatchNorm, Mark, adaptive_average_pool
from delete_jax.models.network import Network


class VGG(nn.Module):
    """Images `[b, h, w, c]`, normalised, -> logits `[b, num_classes]`.

    Attributes:
      num_classes: the number of classes, k.
      stages, features: 3x3 convolutions per stage, and their channels. Each stage but the last halves the resolution.
      pool_last: whether the last stage halves it too.
      bias: whether the convolutions have one; the normalisation after them makes it redundant.
      grid: positions per side after the adaptive average pooling, before the first linear layer.
      hidden: width of the two linear layers before the classifier.
      dropout: rate after each of these two layers, in training.
      dtype: of the computation. Parameters, statistics and logits stay float32.
    """

    num_classes: int
    stages: Sequence[int] = (2, 2, 3, 3, 3)
    features: Sequence[int] = (64, 128, 256, 512, 512)
    pool_last: bool = True
    bias: bool = True
    grid: int = 7
    hidden: int = 4096
    dropout: float = 0.5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if min(x.shape[1:3]) < (least := 2 ** (len(self.stages) - (not self.pool_last))):
            raise ValueError(
                f"images of {x.shape[1]} x {x.shape[2]} pixels are too small: VGG halves them to nothing below {least}"
            )
        x = x.astype(self.dtype)
        he, small = nn.initializers.variance_scaling(2.0, "fan_out", "normal"), nn.initializers.normal(0.01)
        for stage, (convolutions, features) in enumerate(zip(self.stages, self.features, strict=True)):
            for i in range(convolutions):
                name = f"{stage + 1}_{i + 1}"
                x = nn.Conv(
                    features,
                    (3, 3),
                    padding=1,
                    use_bias=self.bias,
                    dtype=self.dtype,
                    kernel_init=he,
                    name=f"conv{name}",
                )(x)
                x = nn.relu(BatchNorm(dtype=self.dtype, name=f"bn{name}")(x, train))
            x = Mark(name=f"stage{stage + 1}")(x)
            if self.pool_last or stage + 1 < len(self.stages):
                x = nn.max_pool(x, (2, 2), (2, 2))
        x = adaptive_average_pool(x, self.grid)
        x = x.reshape(x.shape[0], -1)
        for name in ("fc1", "fc2"):
            x = nn.relu(nn.Dense(self.hidden, dtype=self.dtype, kernel_init=small, name=name)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        wide = np.promote_types(self.dtype, jnp.float32)
        return nn.Dense(self.num_classes, dtype=wide, kernel_init=small, name="classifier")(x.astype(wide))


def vgg16_bn(num_classes: int, dtype: jnp.dtype = jnp.float32) -> VGG:
    """VGG-16-BN with torchvision's head of two layers of 4096, for photographs of 200 pixels: 138 M parameters."""
    return VGG(num_classes, dtype=dtype)


def vgg16_bn_small(num_classes: int, dtype: jnp.dtype = jnp.float32) -> VGG:
    """VGG-16-BN with a head of two layers of 256 and no dropout, for images of 32 to 64 pixels: 15 M parameters."""
    return VGG(num_classes, pool_last=False, bias=False, grid=2, hidden=256, dropout=0.0, dtype=dtype)


LAYERS = tuple(f"stage{i + 1}" for i in range(5))
ROWS = {
    "vgg16_bn": Network(vgg16_bn, "classifier", layers=LAYERS),
    "vgg16_bn_small": Network(vgg16_bn_small, "classifier", layers=LAYERS),
}
