"""Swin Transformer (Liu et al., arXiv 2103.14030): attention within windows, shifted at every other block."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.models.layers import LayerNorm, Mark, Mlp, StochasticDepth, attention, linear, recomputed
from delete_jax.models.network import Network

EPSILON = 1e-5  # of the layer normalisations


def relative_position_index(window: int) -> np.ndarray:
    """Computes which row of the bias table a pair of positions reads: int `[window², window²]`."""
    places = np.stack(np.meshgrid(np.arange(window), np.arange(window), indexing="ij")).reshape(2, -1)
    rows, columns = places[:, :, None] - places[:, None, :] + window - 1
    return rows * (2 * window - 1) + columns


def window_mask(rows: int, columns: int, window: int, shift: tuple[int, int]) -> np.ndarray:
    """Computes which pairs of positions of a window of the rolled image are no neighbours: bool `[windows, window², window²]`.

    Rolling brings what left at one side in at the other; these parts must not see one another.
    """

    def parts(length: int, shift: int) -> np.ndarray:
        part = np.zeros(length, int)
        if shift:
            part[-window:-shift], part[-shift:] = 1, 2
        return part

    regions = 3 * parts(rows, shift[0])[:, None] + parts(columns, shift[1])[None]
    split = regions.reshape(rows // window, window, columns // window, window).transpose(0, 2, 1, 3)
    split = split.reshape(-1, window * window)
    return split[:, :, None] != split[:, None, :]


class WindowAttention(nn.Module):
    """Every position looks at those in its window: `[b, h, w, d]` -> `[b, h, w, d]`.

    Images that do not divide into windows are padded with zeros on the right and below, as torchvision does. Along a side
    that fits into one window nothing is shifted.

    Attributes:
      heads: of the attention.
      window: positions per side of a window.
      shifted: windows begin half a window further.
    """

    heads: int
    window: int
    shifted: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, h, w, d = x.shape
        size, places = self.window, self.window**2
        x = jnp.pad(x, ((0, 0), (0, -h % size), (0, -w % size), (0, 0)))
        rows, columns = x.shape[1:3]
        half = size // 2 if self.shifted else 0
        shift = (half if rows > size else 0, half if columns > size else 0)
        x = jnp.roll(x, (-shift[0], -shift[1]), axis=(1, 2))
        x = x.reshape(b, rows // size, size, columns // size, size, d).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(b, -1, places, d)

        small = nn.initializers.truncated_normal(0.02)
        wide = np.promote_types(self.dtype, jnp.float32)
        table = self.param("relative_position_bias_table", small, ((2 * size - 1) ** 2, self.heads), wide)
        bias = table[relative_position_index(size)].transpose(2, 0, 1)[None, None]
        if any(shift):
            apart = window_mask(rows, columns, size, shift)[None, :, None]
            bias = bias + np.where(apart, -100, 0).astype(wide)
        x = attention(linear(3 * d, self.dtype, "qkv")(x), self.heads, bias)
        x = linear(d, self.dtype, "proj")(x)

        x = x.reshape(b, rows // size, columns // size, size, size, d).transpose(0, 1, 3, 2, 4, 5)
        x = jnp.roll(x.reshape(b, rows, columns, d), shift, axis=(1, 2))
        return x[:, :h, :w]


class SwinBlock(nn.Module):
    """Attention within windows and a perceptron, each with a shortcut: `[b, h, w, d]` -> `[b, h, w, d]`.

    Attributes:
      drop: how often each of the two is left out in training.
    """

    heads: int
    window: int
    shifted: bool
    drop: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = LayerNorm(EPSILON, self.dtype, name="norm1")(x)
        y = WindowAttention(self.heads, self.window, self.shifted, self.dtype, name="attn")(y)
        x = x + StochasticDepth(self.drop, name="drop1")(y, train)
        y = Mlp(4 * x.shape[-1], self.dtype, name="mlp")(LayerNorm(EPSILON, self.dtype, name="norm2")(x))
        return x + StochasticDepth(self.drop, name="drop2")(y, train)


class PatchMerging(nn.Module):
    """Every 2x2 positions become one of twice as many channels: `[b, h, w, d]` -> `[b, ⌈h/2⌉, ⌈w/2⌉, 2d]`."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
        places = ((0, 0), (1, 0), (0, 1), (1, 1))
        merged = jnp.concatenate([x[:, row::2, column::2] for row, column in places], axis=-1)
        return linear(2 * x.shape[-1], self.dtype, "reduction", bias=False)(
            LayerNorm(EPSILON, self.dtype, name="norm")(merged)
        )


class Swin(nn.Module):
    """Images `[b, h, w, c]`, normalised, of any size -> logits `[b, num_classes]`.

    Attributes:
      num_classes: the number of classes, k.
      patch: pixels per side of a patch.
      width: channels of the first stage. Each later stage has twice as many and half the resolution.
      depths, heads: blocks in each stage, and heads in each of these blocks.
      window: positions per side of a window.
      stochastic_depth: rate at which the last block's branches are dropped in training. It rises linearly from 0 in the first block.
      dtype: of the computation. Parameters and logits stay float32.
      remat: recompute the blocks' activations in the backward pass: about a third more time, much less memory.
    """

    num_classes: int
    patch: int = 4
    width: int = 96
    depths: Sequence[int] = (2, 2, 6, 2)
    heads: Sequence[int] = (3, 6, 12, 24)
    window: int = 7
    stochastic_depth: float = 0.2
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        size, dtype = (self.patch, self.patch), self.dtype
        x = nn.Conv(self.width, size, size, padding="VALID", dtype=dtype, name="patch_embed")(x.astype(dtype))
        x = LayerNorm(EPSILON, dtype, name="patch_norm")(x)
        make = recomputed(SwinBlock, self.remat)
        done, last = 0, max(sum(self.depths) - 1, 1)
        for stage, (depth, heads) in enumerate(zip(self.depths, self.heads, strict=True)):
            if stage:
                x = PatchMerging(dtype, name=f"merge{stage}")(x)
            for i in range(depth):
                drop = self.stochastic_depth * done / last
                x = make(heads, self.window, i % 2 == 1, drop, dtype, name=f"stage{stage + 1}_{i}")(x, train)
                done += 1
            x = Mark(name=f"stage{stage + 1}")(x)
        wide = np.promote_types(dtype, jnp.float32)
        x = jnp.mean(LayerNorm(EPSILON, dtype, name="norm")(x), axis=(1, 2), dtype=wide)
        return linear(self.num_classes, wide, "head")(x)


def swin_t(num_classes: int, dtype: jnp.dtype = jnp.float32) -> Swin:
    """Swin-T, windows of 7 x 7 patches of 4 pixels, for photographs of 224 pixels and others: 28 M parameters."""
    return Swin(num_classes, dtype=dtype)


ROWS = {"swin_t": Network(swin_t, classifier="head", layers=("stage1", "stage2", "stage3", "stage4"))}
