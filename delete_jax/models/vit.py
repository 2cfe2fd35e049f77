"""Vision transformers (Dosovitskiy et al., arXiv 2010.11929) with a class token."""

from __future__ import annotations

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.models.layers import LayerNorm, Mark, Mlp, attention, linear, recomputed
from delete_jax.models.network import Network

EPSILON = 1e-6  # of the layer normalisations


class SelfAttention(nn.Module):
    """Every token looks at every token: `[b, n, d]` -> `[b, n, d]`."""

    heads: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        qkv = linear(3 * x.shape[-1], self.dtype, "qkv")(x)
        return linear(x.shape[-1], self.dtype, "proj")(attention(qkv, self.heads))


class EncoderBlock(nn.Module):
    """Attention and a perceptron, each with a shortcut past it and its layer normalisation: `[b, n, d]` -> `[b, n, d]`."""

    heads: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = x + SelfAttention(self.heads, self.dtype, name="attn")(LayerNorm(EPSILON, self.dtype, name="norm1")(x))
        return x + Mlp(4 * x.shape[-1], self.dtype, name="mlp")(LayerNorm(EPSILON, self.dtype, name="norm2")(x))


class ViT(nn.Module):
    """Images `[b, h, w, c]`, normalised, -> logits `[b, num_classes]`.

    The position embedding fixes the image size, that of the initialisation. Grad-CAM uses the layer "grid": the patches' tokens
    at the input of the last block, `[b, h / patch, w / patch, width]`. After that block, only the class token matters.

    Attributes:
      num_classes: the number of classes, k.
      patch: pixels per side of a patch. It must divide height and width.
      width, depth, heads: channels of a token, number of blocks, and heads in each block.
      dtype: of the computation. Parameters and logits stay float32.
      remat: recompute the blocks' activations in the backward pass: about a third more time, much less memory.
    """

    num_classes: int
    patch: int = 16
    width: int = 384
    depth: int = 12
    heads: int = 6
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        size, dtype = (self.patch, self.patch), self.dtype
        if x.shape[1] % self.patch or x.shape[2] % self.patch:
            raise ValueError(f"images of {x.shape[1]} x {x.shape[2]} pixels do not divide into patches of {self.patch}")
        x = nn.Conv(self.width, size, size, padding="VALID", dtype=dtype, name="patch_embed")(x.astype(dtype))
        b, rows, columns, d = x.shape
        wide, small = np.promote_types(dtype, jnp.float32), nn.initializers.normal(0.02)
        cls_token = self.param("cls_token", small, (1, 1, d), wide).astype(dtype)
        pos_embed = self.param("pos_embed", small, (1, 1 + rows * columns, d), wide).astype(dtype)
        x = jnp.concatenate([jnp.broadcast_to(cls_token, (b, 1, d)), x.reshape(b, -1, d)], axis=1) + pos_embed
        make = recomputed(EncoderBlock, self.remat)
        for i in range(self.depth):
            if i + 1 == self.depth:
                grid = Mark(name="grid")(x[:, 1:].reshape(b, rows, columns, d))
                x = jnp.concatenate([x[:, :1], grid.reshape(b, -1, d)], axis=1)
            x = make(self.heads, dtype, name=f"block{i}")(x, train)
        x = LayerNorm(EPSILON, dtype, name="norm")(x)[:, 0]
        return linear(self.num_classes, wide, "head")(x.astype(wide))


def vit(num_classes: int, patch: int, width: int, heads: int, dtype: jnp.dtype = jnp.float32) -> ViT:
    """Vision transformer: s small, 22 M parameters, or b base, 86 M; its patches of 16 pixels, or of 4 for small images."""
    return ViT(num_classes, patch, width, heads=heads, dtype=dtype)


def row(factory: Callable[..., ViT]) -> Network:
    """Makes the row of a vision transformer of twelve blocks."""
    return Network(factory, classifier="head", layers=("block2", "block5", "block8", "grid"))


ROWS = {
    f"vit_{size}{patch}": row(functools.partial(vit, patch=patch, width=64 * heads, heads=heads))
    for size, patch, heads in (("s", 16, 6), ("b", 16, 12), ("s", 4, 6))
}
