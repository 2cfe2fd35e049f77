"""A Keras network as a `Model`: Keras 3 on its JAX backend runs as a function of its variables."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from delete_jax.model import Model, Variables, as_given
from delete_jax.models.layers import bound_axis_size

if TYPE_CHECKING:
    import chex
    import keras


def from_keras(network: keras.Model, classifier: str | None = None) -> tuple[Model, Variables]:
    """Converts a Keras network on the JAX backend: one of keras.applications, or your own. Needs the extra `keras`.

    The network must return logits, with no softmax at the end. In keras.applications, pass `classifier_activation=None`.

        model, variables = dj.models.from_keras(network)
        result = dj.unlearn(model, variables, images, labels, forget=[3])
        for weight in network.weights:
            weight.assign((result.variables["params"] | result.variables["state"])[weight.path])

    In training mode, running statistics are updated, and random layers are seeded from the step's key.

    Args:
      network: a built network. It is not changed.
      classifier: the name of its last layer, such as "dense" (see `Model.classifier`).

    Returns:
      the model, and copies of the network's weights by their paths: `params` are trained, and `state` holds all others (running
      statistics, frozen layers).

    Raises:
      ValueError: Keras is missing or runs on another backend, the network is not a Keras network or not built, two weights have
        the same path, or no layer has that name. Raised by `apply_train` if each device would compute its own statistics.
    """
    _check(network)
    known = {id(weight): weight.path for weight in network.weights}
    if len(set(known.values())) < len(known):
        twice = next(path for path in known.values() if list(known.values()).count(path) > 1)
        raise ValueError(f"two weights of the network are called {twice}: give its layers different names")
    # Seeds of what is random, for example, are no weights.
    hidden = {id(value): _copy(value) for value in network.non_trainable_variables if id(value) not in known}
    variables = {"params": _by_path(network.trainable_weights), "state": _by_path(network.non_trainable_weights)}
    path = None if classifier is None else (_kernel(classifier, variables["params"]),)

    def run(variables: Variables, x: chex.Array, key: chex.PRNGKey | None) -> tuple[chex.Array, Variables]:
        given = variables["params"] | variables["state"]
        others = hidden if key is None else _seeded(hidden, key)

        def values(these: Iterable[Any]) -> list[chex.Array]:
            return [others[id(v)] if id(v) in others else given[known[id(v)]] for v in these]

        trained, rest = network.trainable_variables, network.non_trainable_variables
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            logits, updated = network.stateless_call(values(trained), values(rest), x, training=key is not None)
        after = {known[id(v)]: value for v, value in zip(rest, updated, strict=True) if id(v) in known}
        return logits, as_given(
            {name: after.get(name, leaf) for name, leaf in variables["state"].items()}, variables["state"]
        )

    def apply(variables: Variables, x: chex.Array) -> chex.Array:
        return run(variables, x, None)[0]

    def apply_train(variables: Variables, x: chex.Array, key: chex.PRNGKey) -> tuple[chex.Array, Variables]:
        if bound_axis_size() > 1 and variables["state"]:
            raise ValueError(
                "Keras takes statistics of each device's images alone under pmap: use parallel='sharding' or 'jit', or "
                "batch_norm='frozen'"
            )
        logits, state = run(variables, x, key)
        return logits, {**variables, "state": state}

    return Model(apply, apply_train, path), variables


def _check(network: Any) -> None:
    try:
        import keras  # few need it
    except ImportError as error:
        raise ValueError("Keras networks need keras: pip install 'delete_jax[keras]'") from error
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"Keras runs on {keras.backend.backend()}, and JAX is needed: set KERAS_BACKEND=jax before it is imported, and load "
            "the network again"
        )
    if not isinstance(network, keras.Model):
        what = f"the class {network.__name__}" if inspect.isclass(network) else f"a {type(network).__name__}"
        raise ValueError(f"from_keras needs a keras.Model, got {what}")
    if not network.built or not network.trainable_weights:
        raise ValueError(
            "the Keras network has no weights that are trained: call it on an image first, or unfreeze a layer"
        )


def _by_path(weights: Iterable[Any]) -> dict[str, jax.Array]:
    return {weight.path: _copy(weight) for weight in weights}


def _copy(weight: Any) -> jax.Array:
    return jnp.array(weight.value, copy=True)


def _seeded(hidden: dict[int, jax.Array], key: chex.PRNGKey) -> dict[int, jax.Array]:
    """The same with new seeds; numbers of another kind stay."""
    return {
        name: jax.random.bits(jax.random.fold_in(key, i), value.shape, value.dtype)
        if value.dtype == jnp.uint32
        else value
        for i, (name, value) in enumerate(hidden.items())
    }


def _kernel(layer: str, params: dict[str, jax.Array]) -> str:
    found = [path for path in params if path == layer or f"/{path}".endswith(f"/{layer}/kernel")]
    if len(found) != 1:
        last = ", ".join([path for path, leaf in params.items() if leaf.ndim > 1][-4:])
        raise ValueError(
            f"the network must have one trained kernel of a layer {layer!r}, it has {len(found)}: the last are {last}"
        )
    return found[0]
