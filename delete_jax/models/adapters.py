"""From a network of some framework to a `Model`: two pure functions."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import flax.linen as nn

from delete_jax.model import Model, Variables

if TYPE_CHECKING:
    from flax import nnx


@functools.cache
def from_linen(module: nn.Module, classifier: str | None = None) -> Model:
    """A Linen module whose `__call__(x, train: bool)` returns logits. Equal arguments give the same `Model`.

    Args:
      module: the network.
      classifier: the path of its last layer, such as "head" or "decoder/head" (see `Model.classifier`).
    """

    def apply(variables, x):
        return module.apply(variables, x, train=False)

    def apply_train(variables, x, key):
        mutable = [name for name in variables if name != "params"]
        logits, updated = module.apply(variables, x, train=True, mutable=mutable, rngs={"dropout": key})
        return logits, {**variables, **updated}

    return Model(apply, apply_train, tuple(classifier.split("/")) if classifier else None)


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
