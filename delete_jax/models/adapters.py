"""From a network of some framework to a `Model`: two pure functions."""

from __future__ import annotations

import functools

import flax.linen as nn
from flax import nnx

from delete_jax.model import Model, Variables


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
