"""Grad-CAM: where in the image a network finds its reasons for a class (Selvaraju et al., ICCV 2017, arXiv 1610.02391)."""

from __future__ import annotations

import functools
from collections.abc import Callable

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from delete_jax.model import Variables


@functools.cache
def grad_cam(module: nn.Module, layer: str) -> Callable[[Variables, chex.Array, chex.Array], chex.Array]:
    """`(variables, x, classes) -> maps`: the activations of a layer, weighted by the mean gradient of the class's logit.

    Args:
      module: a Linen classifier, `__call__(x, train)`.
      layer: the name of one of its submodules, with activations `[b, h, w, d]`, such as the last block of a ResNet.

    Returns:
      a compiled function of `x` `[b, H, W, c]`, normalised, and `classes` int `[b]`; maps float `[b, h, w]`, at least 0:
      `relu(Σ_d mean_hw(∂ logit / ∂ a_d) a_d)`.

    Raises:
      ValueError: (by the function) the module has no such layer, or runs it several times.
    """

    def run(variables: Variables, x: chex.Array, shift: chex.Numeric) -> tuple[chex.Array, chex.Array]:
        """Logits and the layer's activations, with `shift` added to these."""
        seen = []

        def intercept(call, args, kwargs, context):
            value = call(*args, **kwargs)
            if context.module.name == layer and context.method_name == "__call__":
                value = value + shift
                seen.append(value)
            return value

        with nn.intercept_methods(intercept):
            logits = module.apply(variables, x, train=False)
        if len(seen) != 1:
            raise ValueError(f"Grad-CAM needs a layer that runs once, {layer!r} ran {len(seen)} times")
        return logits, seen[0]

    @jax.jit
    def maps(variables: Variables, x: chex.Array, classes: chex.Array) -> chex.Array:
        like = jax.eval_shape(lambda: run(variables, x, 0)[1])

        def score(shift: chex.Array) -> tuple[chex.Array, chex.Array]:
            logits, activations = run(variables, x, shift)
            return jnp.sum(jnp.take_along_axis(logits, classes[:, None], axis=1)), activations

        gradient, activations = jax.grad(score, has_aux=True)(jnp.zeros(like.shape, like.dtype))
        weights = jnp.mean(gradient, axis=(1, 2), keepdims=True)
        return jax.nn.relu(jnp.sum(weights * activations, axis=-1))

    return maps
