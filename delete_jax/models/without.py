"""A network that says nothing about some classes: a change of its function, for deployment."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from delete_jax.given import class_numbers
from delete_jax.model import Model, Variables

if TYPE_CHECKING:
    import chex

LEFT = 1e-6
"""The probability of each class that nothing is said about."""


def without_classes(model: Model, classes: int | Iterable[int]) -> Model:
    """Gives each of `classes` a constant probability of 1e-6, whatever the image.

    The logits become log-probabilities: `log q_u = log 1e-6` for `classes`, and `log_softmax` over the other classes plus
    `log(1 - 1e-6 |U|)`. They carry no information about `classes`: the network never predicts these, and nobody can rank images by
    them. The ratios among the other classes do not change.

    This hides the classes and forgets nothing: the variables are unchanged, and whoever has them has the classes. Use it for
    predictions that are served, directly or from a file, after a method has changed the variables:

        served = dj.models.without_classes(model, [3])
        dj.models.save_exported(served, result.variables, "network.jax", image_shape, preprocess)

    A network retrained without a class is not constant either: its output for the class still depends slightly on the image.

    Args:
      model: with logits `[*b, k]`.
      classes: a class number from 0 to k - 1, or several; not all of them.

    Returns:
      A model for the same variables. Equal arguments return the same model.

    Raises:
      ValueError: `classes` is empty or contains something other than a class number. Raised when the model runs if the network
        lacks one of the classes, or has no others.

    Examples:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import delete_jax as dj
      >>> model = dj.Model(lambda variables, x: x, lambda variables, x, key: (x, variables))
      >>> served = dj.models.without_classes(model, [0])
      >>> jax.nn.softmax(served.apply({}, jnp.array([[5.0, 1.0, 1.0]]))).round(3).tolist()
      [[0.0, 0.5, 0.5]]
    """
    chosen = tuple(sorted(set(class_numbers(classes, name="classes"))))
    if not chosen:
        raise ValueError("classes is empty: give at least one class number, such as [3]")
    return _without(model, chosen)


@functools.lru_cache(maxsize=16)  # the same functions for the same model: they are compiled once
def _without(model: Model, classes: tuple[int, ...]) -> Model:
    def silent(logits: chex.Array) -> chex.Array:
        k = logits.shape[-1]
        if classes[-1] >= k or len(classes) == k:
            raise ValueError(f"classes {', '.join(map(str, classes))} of {k} (0 to {k - 1}): at least one must remain")
        erased = jnp.isin(jnp.arange(k), jnp.asarray(classes)).reshape(*[1] * (logits.ndim - 1), k)
        others = jax.nn.log_softmax(logits, where=~erased, axis=-1) + math.log1p(-LEFT * len(classes))
        return jnp.where(erased, jnp.asarray(math.log(LEFT), logits.dtype), others)

    def apply(variables: Variables, x: chex.Array) -> chex.Array:
        return silent(model.apply(variables, x))

    def apply_train(variables: Variables, x: chex.Array, key: chex.PRNGKey) -> tuple[chex.Array, Variables]:
        logits, updated = model.apply_train(variables, x, key)
        return silent(logits), updated

    return model._replace(apply=apply, apply_train=apply_train)
