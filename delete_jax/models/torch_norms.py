"""PyTorch's normalisations with running statistics, for a module that torchax runs.

torchax leaves running statistics as they are in training, and knows nothing of other devices. Both functions take the
arguments of their namesakes in `torch.nn.functional`; tensors are torchax's, and buffers change in place, as PyTorch's do.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.models.layers import batch_statistics, bound_axis_size
from delete_jax.parallel import AXIS


class Cumulative(float):
    """Stands for `momentum=None` of a BatchNorm, whose own code would need the number of batches as a number.

    PyTorch then averages over all batches so far: the new one counts 1 / num_batches_tracked.
    """

    module: Any

    @classmethod
    def of(cls, module: Any) -> Cumulative:
        momentum = cls(0)
        momentum.module = module
        return momentum

    def rate(self) -> jax.Array:
        return 1 / self.module.num_batches_tracked.jax().astype(jnp.float32)


def batch_norm(
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """Computes `torch.nn.functional.batch_norm`; under `pmap` the statistics are those of all devices."""
    x = input.jax()
    if not training:
        return _normalised(input, running_mean.jax(), running_var.jax(), weight, bias, eps)
    mean, var, count = batch_statistics(x, (0, *range(2, x.ndim)))
    if count == 1:
        raise ValueError(
            f"batch normalisation in training needs more than one value per channel, got {list(x.shape)}: use larger batches "
            'or images, or batch_norm="frozen"'
        )
    if running_mean is not None:
        rate = momentum.rate() if isinstance(momentum, Cumulative) else momentum
        _follow(running_mean, mean, rate)
        _follow(running_var, var * (count / (count - 1)), rate)
    return _normalised(input, mean, var, weight, bias, eps)


def instance_norm(
    input: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """Computes `torch.nn.functional.instance_norm`; under `pmap` running statistics follow the images of all devices."""
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, eps=eps)
    x = input.jax()
    axes, count = tuple(range(2, x.ndim)), math.prod(x.shape[2:])
    if count == 1:
        raise ValueError(f"instance normalisation needs more than one position, got {list(x.shape)}: use larger images")
    wide = np.promote_types(x.dtype, jnp.float32)
    mean, var = jnp.mean(x, axes, wide), jnp.var(x.astype(wide), axes)
    if running_mean is not None:
        average = functools.partial(jnp.mean, axis=0)
        of_all = average if bound_axis_size() == 1 else lambda value: jax.lax.pmean(average(value), AXIS)
        _follow(running_mean, of_all(mean), momentum)
        _follow(running_var, of_all(var) * (count / (count - 1)), momentum)
    return _normalised(input, mean, var, weight, bias, eps)


def overrides() -> dict[Any, Any]:
    """Maps what PyTorch calls to what runs in its place: the functions, and what they are made of."""
    import torch

    def raw_batch_norm(input, weight, bias, mean, var, training, momentum, eps, cudnn_enabled=False):
        return batch_norm(input, mean, var, weight, bias, training, momentum, eps)

    def raw_instance_norm(input, weight, bias, mean, var, use_input_stats, momentum, eps, cudnn_enabled=False):
        return instance_norm(input, mean, var, weight, bias, use_input_stats, momentum, eps)

    return {
        torch.nn.functional.batch_norm: batch_norm,
        torch.nn.functional.instance_norm: instance_norm,
        torch.batch_norm: raw_batch_norm,
        torch.instance_norm: raw_instance_norm,
    }


def _normalised(input: Any, mean: jax.Array, var: jax.Array, weight: Any, bias: Any, eps: float) -> Any:
    """`input` `[b, c, ...]`; statistics `[c]`, or `[b, c]`."""

    def normalise(x: jax.Array) -> jax.Array:
        def channels(value: jax.Array) -> jax.Array:
            return value.reshape((-1, x.shape[1], *[1] * (x.ndim - 2)))

        factor = jax.lax.rsqrt(var + eps)
        factor = factor if weight is None else factor * weight.jax()
        shift = -mean * factor if bias is None else bias.jax() - mean * factor
        return (x.astype(factor.dtype) * channels(factor) + channels(shift)).astype(x.dtype)

    return input.apply_jax(normalise)


def _follow(buffer: Any, value: jax.Array, rate: Any) -> None:
    """A running average takes a step towards a value."""
    buffer.apply_jax_(lambda old: ((1 - rate) * old + rate * value).astype(old.dtype))
