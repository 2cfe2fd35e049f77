"""A model is two pure functions; where they come from (Linen, NNX, Equinox, plain code) the core never knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.devices import own_devices

if TYPE_CHECKING:
    import chex

Variables = dict[str, Any]
"""All collections of a network, by name: `params` (trained) and, say, `batch_stats`. Each is a pytree of arrays."""


class Model(NamedTuple):
    """A network as two pure functions.

    Attributes:
      apply: `(variables, x) -> logits` in evaluation mode. `x` is a float array `[b, h, w, c]`, and the logits are `[*b, k]`.
          It must not return probabilities, a tuple or a dict.
      apply_train: `(variables, x, key) -> (logits, variables)` in training mode. The returned variables have updated running
          statistics, unchanged parameters, and the shapes of the variables passed in.
      classifier: the path of the last layer in `params`, such as ("fc",), for methods that change it. If None, these methods
          find the layer by what it computes.
    """

    apply: Callable[[Variables, chex.Array], chex.Array]
    apply_train: Callable[[Variables, chex.Array, chex.PRNGKey], tuple[chex.Array, Variables]]
    classifier: tuple[str, ...] | None = None


def may_answer(logits: np.ndarray) -> np.ndarray:
    """Finds the classes that a network may answer with, by some of its logits `[*b, k]`: bool `[k]`. A class whose logit is 1000 or more
    below the largest at every position is one that somebody has masked, by -1e9 say: that number would be the scale of all others."""
    below = logits.max(-1, keepdims=True).astype(np.float64) - logits
    return np.any(below.reshape(-1, logits.shape[-1]) < 1e3, axis=0)


def contained_as(tree: Any, like: Any) -> Any:
    """Puts a tree's leaves into the containers of `like` (a FrozenDict, say), a tree with leaves of the same names.

    Raises:
      KeyError: a leaf of `like` is not there.
    """
    values = by_names(tree)
    return jax.tree_util.tree_map_with_path(lambda path, _: values[names_on(path)], like)


def as_given(tree: Any, like: Any) -> Any:
    """Gives a tree the containers and the dtypes of `like`, a tree with leaves of the same names.

    A state that changed either from step to step would be compiled twice.
    """

    def cast(value: Any, leaf: Any) -> chex.Array:
        return jnp.asarray(value).astype(jax.dtypes.canonicalize_dtype(leaf.dtype))

    return jax.tree.map(cast, contained_as(tree, like), like)


def on_one_device(variables: Any) -> Any:
    """Moves arrays that lie elsewhere, or in parts on several devices, to the first device that this process uses; those of all processes
    stay. What is compiled takes arrays that lie together, and it is the layout that spreads them."""
    # A device alone would keep the axes of an explicit mesh.
    first = jax.sharding.SingleDeviceSharding(own_devices()[0])

    def moved(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or not leaf.is_fully_addressable:
            return leaf
        return leaf if leaf.sharding == first else jax.device_put(leaf, first)

    return jax.tree.map(moved, variables)


def without_params(variables: Variables) -> Variables:
    """Returns all collections of a network but its parameters: its running statistics, say."""
    return {name: tree for name, tree in variables.items() if name != "params"}


def with_statistics(variables: Variables, of: Variables) -> Variables | None:
    """Puts the running statistics of another network, which are all collections but `params`, beside these parameters.

    Args:
      variables, of: variables of the same model.

    Returns:
      The parameters of `variables` with the other collections of `of`. None where the network has no other collections, or both
      networks have the same values there.
    """
    own = without_params(variables)
    theirs = {name: contained_as(of[name], tree) for name, tree in own.items()}
    return None if have_same_values(own, theirs) else {**variables, **theirs}


def have_same_values(one: Any, other: Any) -> bool:
    """Whether two pytrees with the same leaves, in the same order, have the same numbers in them."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(plain_key(here), plain_key(there)) for here, there in pairs)


def plain_key(leaf: Any) -> Any:
    """Returns the numbers of a random key, which NumPy and stores take; any other leaf as it is."""
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf)) if is_key else leaf


def as_saved(tree: Any) -> dict[str, Any]:
    """Converts any pytree, whatever its containers are, to what a store takes: nested dicts of its leaves by name."""
    nested: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        *outer, last = names_on(path)
        here = nested
        for name in outer:
            here = here.setdefault(name, {})
        here[last] = plain_key(leaf)
    return nested


def from_saved(saved: Any, like: Any) -> Any:
    """Undoes `as_saved`: puts the leaves of `saved` into the containers of `like`.

    Raises:
      ValueError: a leaf is missing, or has another shape.
    """
    values = by_names(saved)

    def take(path: tuple[Any, ...], leaf: Any) -> Any:
        value = values.get(names_on(path))
        if value is not None and jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
            return jax.random.wrap_key_data(jnp.asarray(value), impl=jax.random.key_impl(leaf))
        if value is None or jnp.shape(value) != jnp.shape(leaf):
            found = "nothing" if value is None else f"an array {list(jnp.shape(value))}"
            raise ValueError(
                f"what was saved is of another network: {found} for {leaf_name(path)} {list(jnp.shape(leaf))}"
            )
        return value

    return jax.tree_util.tree_map_with_path(take, like)


def names_on(path: tuple[Any, ...]) -> tuple[str, ...]:
    """Returns the names on a leaf's path in a tree, whatever the containers are: ("params", "fc", "kernel")."""
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def by_names(tree: Any) -> dict[tuple[str, ...], Any]:
    """Returns the leaves of a tree by the names on their paths. Joined to one text, two of them may be the same: a name may hold a "/"."""
    return {names_on(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def leaf_name(path: tuple[Any, ...]) -> str:
    """Formats a leaf's path in a tree for a message: "params/fc/kernel"."""
    return "/".join(names_on(path))


def first_line(error: BaseException) -> str:
    """Shortens an error for a message: its first line, or its kind where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
