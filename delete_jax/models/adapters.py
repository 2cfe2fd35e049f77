"""From a network of some framework to a `Model`: two pure functions."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp

from delete_jax.model import Model, Variables

if TYPE_CHECKING:
    from flax import nnx

ACTIVATIONS = "intermediates"
"""Flax's collection into which a Linen module sows what `features` returns: "features", the classifier's inputs, and layers."""


@functools.cache
def features(module: nn.Module, layer: str = "features") -> Model:
    """A network of this package up to one of its layers: `apply` returns activations `[b, d]` in place of logits.

    Args:
      module: sows its activations, as `ResNet` does: "stem", "layer1" … and "features".
      layer: which of them; activations with positions are averaged over these.

    Raises:
      ValueError: (by `apply`) the module sows no such layer.
    """

    def apply(variables, x):
        _, sown = module.apply(variables, x, train=False, mutable=[ACTIVATIONS])
        found = sown.get(ACTIVATIONS, {})
        if layer not in found:
            raise ValueError(f"the network has no layer {layer!r}: choose one of {', '.join(found) or 'none'}")
        (value,) = found[layer]
        return jnp.mean(value, tuple(range(1, value.ndim - 1)))

    return Model(apply, lambda variables, x, key: (apply(variables, x), variables))


@functools.cache
def from_linen(module: nn.Module) -> Model:
    """A Linen module whose `__call__(x, train: bool)` returns logits. Equal modules give the same `Model`."""

    def apply(variables, x):
        return module.apply(variables, x, train=False)

    def apply_train(variables, x, key):
        mutable = [name for name in variables if name != "params"]
        logits, updated = module.apply(variables, x, train=True, mutable=mutable, rngs={"dropout": key})
        return logits, {**variables, **updated}

    return Model(apply, apply_train)


def from_nnx(module: nnx.Module) -> tuple[Model, Variables]:
    """An NNX module whose `__call__(x)` returns logits; `train()`/`eval()` set its mode.

    Returns:
      the model, and the module's variables: `params` and, for everything else (running statistics), `state`. To write
      results back: `nnx.update(module, variables["params"], variables["state"])`.
    """
    from flax import nnx  # here, because few need it and it takes long to import

    graph, *parts = nnx.split(module, nnx.Param, nnx.RngState, ...)
    params, rngs, state = parts

    def merge(variables: Variables) -> nnx.Module:
        # copy: without it the merged module shares Variables with the caller's trace
        return nnx.merge(graph, variables["params"], rngs, variables["state"], copy=True)

    def apply(variables, x):
        network = merge(variables)
        network.eval()
        return network(x)

    def apply_train(variables, x, key):
        network = merge(variables)
        network.train()
        nnx.reseed(network, default=key, dropout=key)
        logits = network(x)
        _, *parts = nnx.split(network, nnx.Param, nnx.RngState, ...)
        return logits, {"params": variables["params"], "state": parts[-1]}

    return Model(apply, apply_train), {"params": params, "state": state}
