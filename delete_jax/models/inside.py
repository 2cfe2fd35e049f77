"""Looking inside a network: what enters its classifier, what leaves a layer, and where it finds its reasons."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from delete_jax.model import Model, Variables
from delete_jax.models.torch_modules import torch_features

if TYPE_CHECKING:
    import chex
    import torch


class Seen(NamedTuple):
    """One pass in evaluation mode: logits, and the input and the output of the layer that was watched."""

    logits: chex.Array
    inputs: chex.Array
    outputs: chex.Array


def watch(
    module: nn.Module,
    variables: Variables,
    x: chex.Array,
    layer: str,
    change: Callable[[chex.Array], chex.Array] = lambda value: value,
) -> Seen:
    """Runs the network and looks at one layer, whose output goes on as `change` leaves it.

    Args:
      module: its `__call__(x, train)` returns logits.
      variables, x: its variables, and images `[b, h, w, c]`, normalised.
      layer: the path of a submodule, with "/" between names.

    Raises:
      ValueError: the network has no such layer, or runs it several times.
    """
    seen, names = [], []

    def intercept(call, args, kwargs, context):
        value = call(*args, **kwargs)
        if context.method_name == "__call__" and context.module.path:
            names.append(path := "/".join(context.module.path))
            if path == layer:
                value = change(value)
                seen.append((args[0], value))
        return value

    with nn.intercept_methods(intercept):
        logits = module.apply(variables, x, train=False)
    if len(seen) != 1:
        known = ", ".join(dict.fromkeys(names)) or "none"
        raise ValueError(f"a layer that runs once is needed, {layer!r} ran {len(seen)} times: the network has {known}")
    return Seen(logits, *seen[0])


@functools.cache
def features(module: nn.Module | torch.nn.Module, classifier: str) -> Model:
    """Cuts a network before its classifier: `apply` returns the features that enter it, `[b, d]`, instead of logits.

    Args:
      module: a Linen network, or a PyTorch module (with the variables of `from_torch`).
      classifier: the path of its last layer (`Network.classifier`). Features with positions are averaged over the positions.

    Raises:
      ValueError: (by `apply`) the network has no such layer, or runs it several times.
    """
    if not isinstance(module, nn.Module):
        return torch_features(module, classifier)
    return _up_to(lambda variables, x: watch(module, variables, x, classifier).inputs)


@functools.cache
def layer_output(module: nn.Module | torch.nn.Module, layer: str) -> Model:
    """Cuts a network after one of its layers: `apply` returns the layer's output `[b, d]`, averaged over positions.

    Args:
      module, layer: as for `features`.

    Raises:
      ValueError: (by `apply`) the network has no such layer, or runs it several times.
    """
    if not isinstance(module, nn.Module):
        return torch_features(module, layer, outputs=True)
    return _up_to(lambda variables, x: watch(module, variables, x, layer).outputs)


def _up_to(read: Callable[[Variables, chex.Array], chex.Array]) -> Model:
    def apply(variables, x):
        value = read(variables, x)
        return jnp.mean(value, tuple(range(1, value.ndim - 1)))

    return Model(apply, lambda variables, x, key: (apply(variables, x), variables))


@functools.cache
def grad_cam(module: nn.Module, layer: str) -> Callable[[Variables, chex.Array, chex.Array], chex.Array]:
    """Returns Grad-CAM: a function `(variables, x, classes) -> maps` that shows which parts of an image support a class.

    A map is the sum of a layer's activations, weighted by the mean gradient of the class's logit (Selvaraju et al., ICCV 2017,
    arXiv 1610.02391): `relu(Σ_d mean_hw(∂ logit / ∂ a_d) a_d)`.

    Args:
      module: a Linen classifier, `__call__(x, train)`.
      layer: the path of one of its submodules, with outputs `[b, h, w, d]`, such as the last block of a ResNet.

    Returns:
      a compiled function of the variables, of `x` `[b, H, W, c]`, normalised, and of `classes` int `[b]`. The maps are float `[b, h, w]`, at least 0.

    Raises:
      ValueError: (by the function) the module has no such layer, or runs it several times.
    """

    @jax.jit
    def maps(variables: Variables, x: chex.Array, classes: chex.Array) -> chex.Array:
        like = jax.eval_shape(lambda: watch(module, variables, x, layer).outputs)

        def score(shift: chex.Array) -> tuple[chex.Array, chex.Array]:
            seen = watch(module, variables, x, layer, lambda value: value + shift)
            return jnp.sum(jnp.take_along_axis(seen.logits, classes[:, None], axis=1)), seen.outputs

        gradient, activations = jax.grad(score, has_aux=True)(jnp.zeros(like.shape, like.dtype))
        weights = jnp.mean(gradient, axis=(1, 2), keepdims=True)
        return jax.nn.relu(jnp.sum(weights * activations, axis=-1))

    return maps
