"""Layers with PyTorch's conventions, which flax's own do not follow, and what several networks are made of."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.parallel import AXIS


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last. As in PyTorch, running averages keep the *unbiased* variance.

    Statistics are computed in float32 or wider. Under `pmap` over `parallel.AXIS`, they are those of all devices. Variable names
    match `flax.linen.BatchNorm`. `dtype` is that of the output; the input's if None.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        features = x.shape[-1]
        wide = np.promote_types(x.dtype, jnp.float32)
        mean_ref = self.variable("batch_stats", "mean", jnp.zeros, (features,), wide)
        var_ref = self.variable("batch_stats", "var", jnp.ones, (features,), wide)
        scale = self.param("scale", nn.initializers.ones, (features,), wide)
        bias = self.param("bias", nn.initializers.zeros, (features,), wide)
        mean, var = mean_ref.value, var_ref.value
        if train:
            mean, var, n = batch_statistics(x, tuple(range(x.ndim - 1)))
            if not self.is_initializing():
                keep = self.momentum
                mean_ref.value = (keep * mean_ref.value + (1 - keep) * mean).astype(mean_ref.value.dtype)
                var_ref.value = (keep * var_ref.value + (1 - keep) * n / max(n - 1, 1) * var).astype(
                    var_ref.value.dtype
                )
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        shape = (1,) * (x.ndim - 1) + (features,)
        return (x.astype(wide) * factor.reshape(shape) + (bias - mean * factor).reshape(shape)).astype(
            self.dtype or x.dtype
        )


def recomputed(block: type[nn.Module], remat: bool) -> type[nn.Module]:
    """Wraps a block, called as `(x, train)`, so that its activations are not kept for the backward pass but computed again there."""
    return nn.remat(block, static_argnums=(2,)) if remat else block


class Mark(nn.Module):
    """Returns its input. It names an activation that `Network.layers` should show and that is not the output of a submodule."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return x


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis, its statistics in float32 or wider and the variance from deviations.

    Variable names are those of `flax.linen.LayerNorm`, which mixes dtypes; `dtype` is the result's.
    """

    epsilon: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        wide = np.promote_types(x.dtype, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:], wide)
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:], wide)
        deviation = x.astype(wide) - jnp.mean(x, -1, wide, keepdims=True)
        factor = jax.lax.rsqrt(jnp.mean(jnp.square(deviation), -1, keepdims=True) + self.epsilon)
        shape = (1,) * (x.ndim - 1) + x.shape[-1:]
        return (deviation * factor * scale.reshape(shape) + bias.reshape(shape)).astype(self.dtype)


class Mlp(nn.Module):
    """Linear layer, GELU (the exact one), linear layer: `[..., d]` -> `[..., d]`, with `hidden` channels between."""

    hidden: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = nn.gelu(linear(self.hidden, self.dtype, "fc1")(x), approximate=False)
        return linear(x.shape[-1], self.dtype, "fc2")(hidden)


class StochasticDepth(nn.Module):
    """Drops a residual branch `[b, ...]` for some of the samples and scales it up for the rest (arXiv 1603.09382).

    In training only, and from the random stream "dropout", as `flax.linen.Dropout` does.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if not train or self.rate == 0:
            return x
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.rate, shape)
        return jnp.where(kept, x / (1 - self.rate), jnp.zeros_like(x))


def linear(features: int, dtype: jnp.dtype, name: str, bias: bool = True) -> nn.Dense:
    """Makes a linear layer of a transformer, initialised as these are."""
    init = nn.initializers.truncated_normal(0.02)
    return nn.Dense(features, use_bias=bias, dtype=dtype, kernel_init=init, name=name)


def attention(qkv: jax.Array, heads: int, bias: jax.Array | None = None) -> jax.Array:
    """Applies self-attention of several heads.

    Args:
      qkv: `[..., n, 3 d]`: queries, keys and values, one after the other; each has its heads one after the other.
      heads: h, which divides d.
      bias: added to the scores, to be broadcast to `[..., h, n, n]`.

    Returns:
      `[..., n, d]`, the heads' results one after the other.
    """
    *batch, n, width = qkv.shape
    split = qkv.reshape(*batch, n, 3, heads, width // 3 // heads)
    query, key, value = (split[..., i, :, :] for i in range(3))
    wide = np.promote_types(qkv.dtype, jnp.float32)
    scores = jnp.einsum("...nhd,...mhd->...hnm", query * query.shape[-1] ** -0.5, key).astype(wide)
    if bias is not None:
        scores = scores + bias.astype(wide)
    weights = jax.nn.softmax(scores, axis=-1).astype(qkv.dtype)
    return jnp.einsum("...hnm,...mhd->...nhd", weights, value).reshape(*batch, n, width // 3)


def adaptive_average_pool(x: jax.Array, size: int) -> jax.Array:
    """Means over a grid of `size` x `size` areas that cover the image: `[b, h, w, d]` -> `[b, size, size, d]`.

    Area i reaches from floor(i h / size) to ceil((i + 1) h / size), as PyTorch's AdaptiveAvgPool2d has it: areas overlap
    where the size does not divide h, and repeat pixels where it is larger.
    """

    def areas(length: int) -> np.ndarray:
        weights = np.zeros((size, length))
        for i in range(size):
            begin, end = i * length // size, -(-(i + 1) * length // size)
            weights[i, begin:end] = 1 / (end - begin)
        return weights.astype(x.dtype)

    rows, columns = x.shape[1:3]
    if (rows, columns) == (size, size):
        return x
    return jnp.einsum("bhwd,ih,jw->bijd", x, areas(rows), areas(columns), precision="highest")


def batch_statistics(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array, int]:
    """Computes mean and (biased) variance over `axes` in float32 or wider, and of how many values each is.

    Under `pmap` over `parallel.AXIS`, over the values of all devices.
    """
    wide, devices = np.promote_types(x.dtype, jnp.float32), bound_axis_size()
    mean, square = jnp.mean(x, axes, wide), jnp.mean(jnp.square(x.astype(wide)), axes)
    if devices > 1:
        mean, square = jax.lax.pmean((mean, square), AXIS)
    count = math.prod(x.shape[axis] for axis in axes) * devices
    return mean, jnp.maximum(square - jnp.square(mean), 0), count


def bound_axis_size() -> int:
    """Devices of the mapped axis that this is traced under; 1 outside of `pmap`."""
    try:
        return jax.lax.axis_size(AXIS)
    except NameError:
        return 1
