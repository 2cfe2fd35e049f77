"""Layers with PyTorch's conventions, which flax's own do not follow."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.parallel import AXIS


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, as in PyTorch: running averages keep the *unbiased* variance.

    Statistics are computed in float32 or wider and, under `pmap` over `parallel.AXIS`, over all devices. Variable names
    are those of `flax.linen.BatchNorm`; `dtype` is the result's, the input's when None.
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
            axes, devices = tuple(range(x.ndim - 1)), _bound_axis_size()
            mean, square = jnp.mean(x, axes, wide), jnp.mean(jnp.square(x.astype(wide)), axes)
            if devices > 1:
                mean, square = jax.lax.pmean((mean, square), AXIS)
            var = jnp.maximum(square - jnp.square(mean), 0)
            if not self.is_initializing():
                n = x.size // features * devices
                keep = self.momentum
                mean_ref.value = (keep * mean_ref.value + (1 - keep) * mean).astype(mean_ref.value.dtype)
                var_ref.value = (keep * var_ref.value + (1 - keep) * n / max(n - 1, 1) * var).astype(
                    var_ref.value.dtype
                )
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        shape = (1,) * (x.ndim - 1) + (features,)
        return (x * factor.reshape(shape) + (bias - mean * factor).reshape(shape)).astype(self.dtype or x.dtype)


class Mark(nn.Module):
    """Hands its input on: a name for an activation that is shown (`Network.layers`) and is no submodule's output."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return x


def _bound_axis_size() -> int:
    """Devices of the mapped axis this is traced under; 1 outside of `pmap`."""
    try:
        return jax.lax.axis_size(AXIS)
    except NameError:
        return 1
