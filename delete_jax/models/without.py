"""A network that says nothing about some classes: a change of its function, for deployment."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from delete_jax.model import Model, Variables

if TYPE_CHECKING:
    import chex

LEFT = 1e-6
"""The probability of each class that nothing is said about."""


def without_classes(model: Model, classes: Iterable[int]) -> Model:
    """The network with a constant probability of 1e-6 for each of `classes`, whatever the image.

    Its logits are log-probabilities: `log q_u = log 1e-6` for the classes, `log_softmax` over the others plus
    `log(1 - 1e-6 |U|)` for these. So they say nothing about the classes: they are never predicted, and images cannot be
    ranked by them. The relations among the other classes stay as they are.

    This hides, and forgets nothing: the variables are those given, and whoever has them has the classes. It is for
    predictions that are served, also as a file, after a method has changed the variables:

        served = dj.models.without_classes(model, [3])
        dj.models.save_exported(served, result.variables, "network.jax", image_shape, preprocess)

    A network retrained without a class gives no constant probability either: its output for the class still depends on the
    image a little.

    Args:
      model: with logits `[*b, k]`.
      classes: numbers from 0 to k - 1; at least one of the k is another.

    Returns:
      A model with the same variables, and the same for the same model and classes.

    Raises:
      ValueError: no class, or something that is no class number; (when it runs) a class that the network does not have, or
        all of them.

    Examples:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import delete_jax as dj
      >>> model = dj.Model(lambda variables, x: x, lambda variables, x, key: (x, variables))
      >>> served = dj.models.without_classes(model, [0])
      >>> jax.nn.softmax(served.apply({}, jnp.array([[5.0, 1.0, 1.0]]))).round(3).tolist()
      [[0.0, 0.5, 0.5]]
    """
    chosen = tuple(sorted(set(classes)))
    if not chosen or not all(isinstance(c, int) and not isinstance(c, bool) and c >= 0 for c in chosen):
        raise ValueError(f"classes must be class numbers, at least one, such as [3]; got {chosen}")
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
