"""All-CNN (Springenberg et al., arXiv 1412.6806): convolutions only, those of stride 2 in place of poolings."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.models.layers import Mark
from delete_jax.models.network import Network
from delete_jax.models.resnet import conv_bn_relu


class AllCNN(nn.Module):
    """Images `[b, h, w, c]`, normalised, -> logits `[b, num_classes]`.

    This is the network of the unlearning literature (Golatkar et al., arXiv 1911.04933). It differs from the original
    "All-CNN-C": it has batch normalisation instead of dropout, and twice the channels already in the third layer. Its last 1x1
    convolution is a linear layer after the average over positions, without the rectifier.

    Attributes:
      num_classes: the number of classes, k.
      features: channels before and after the first stride.
      dtype: of the computation. Parameters, statistics and logits stay float32.
    """

    num_classes: int
    features: Sequence[int] = (96, 192)
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        narrow, broad = self.features
        # channels, size and stride
        layers = [(narrow, 3, 1), (narrow, 3, 1), (broad, 3, 2), (broad, 3, 1), (broad, 3, 1), (broad, 3, 2)]
        layers += [(broad, 3, 1), (broad, 1, 1)]
        x = x.astype(self.dtype)
        for i, (features, size, stride) in enumerate(layers):
            x = conv_bn_relu(x, train, features, size, self.dtype, str(i + 1), stride)
            if i + 1 in (2, 5, 8):  # the last layer of each resolution
                x = Mark(name=f"stage{(i + 1) // 3 + 1}")(x)
        wide = np.promote_types(self.dtype, jnp.float32)
        return nn.Dense(self.num_classes, dtype=wide, name="classifier")(jnp.mean(x, axis=(1, 2), dtype=wide))


def all_cnn(num_classes: int, width: float = 1, dtype: jnp.dtype = jnp.float32) -> AllCNN:
    """All-CNN with batch normalisation, for images of 32 pixels: 1.7 M parameters; "_half": half the channels, 0.4 M."""
    return AllCNN(num_classes, features=(int(96 * width), int(192 * width)), dtype=dtype)


ROWS = {
    name: Network(functools.partial(all_cnn, width=width), "classifier", layers=("stage1", "stage2", "stage3"))
    for name, width in (("all_cnn", 1), ("all_cnn_half", 0.5))
}
