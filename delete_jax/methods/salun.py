"""SalUn: random labels on the weights that matter most for the class (Fan et al., ICLR 2024, arXiv 2310.12508)."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from delete_jax.methods.base import (
    FORGET,
    REMAIN,
    Context,
    Method,
    Output,
    Prepared,
    Setup,
    Term,
    towards_labels,
)
from delete_jax.methods.gradients import gradient_batches
from delete_jax.methods.hyperparameters import FLAG, SHARE, factory
from delete_jax.methods.random_label import random_label


@factory(fraction=SHARE, remain=FLAG)
def salun(fraction: float = 0.5, remain: bool = False) -> Method:
    """Cross entropy to random labels, while only the most salient weights move.

    Args:
      fraction: of all weights; those with the largest absolute forget gradient move.
      remain: also train on remaining data.

    Raises:
      ValueError: fraction is outside (0, 1], or remain is not a bool.
    """
    relabel = random_label()

    def prepare(setup: Setup) -> Prepared:
        return relabel.prepare(setup)._replace(constants={"update_mask": saliency_mask(setup, fraction)})

    def loss(outputs: Mapping[str, Output], context: Context) -> dict[str, Term]:
        terms = relabel.loss(outputs, context)
        return terms | ({REMAIN: towards_labels(outputs[REMAIN].batch["label"], outputs[REMAIN])} if remain else {})

    return Method(
        "salun",
        loss,
        (FORGET, REMAIN) if remain else (FORGET,),
        prepare=prepare,
        paper="Fan et al., ICLR 2024, arXiv 2310.12508",
    )


def saliency_mask(setup: Setup, fraction: float) -> chex.ArrayTree:
    """1 at the `fraction` of all weights with the largest absolute gradient of the forget loss, else 0; like the params.

    The gradient is the sum over batches of the batch mean's, in evaluation mode.
    """
    leaves, tree = jax.tree.flatten(setup.teacher["params"])
    wide = functools.reduce(np.promote_types, (leaf.dtype for leaf in leaves), jnp.float32)
    gradients = (optax.tree.cast(gradient, wide) for gradient, _ in gradient_batches(setup, FORGET))
    sizes = jax.tree.leaves(functools.reduce(optax.tree.add, gradients))
    chosen = largest(jnp.abs(jnp.concatenate([leaf.ravel() for leaf in sizes])), fraction)
    parts = jnp.split(chosen, np.cumsum([leaf.size for leaf in leaves])[:-1])
    return jax.tree.unflatten(
        tree, [part.reshape(leaf.shape).astype(leaf.dtype) for part, leaf in zip(parts, leaves, strict=True)]
    )


def largest(values: chex.Array, fraction: float) -> chex.Array:
    """Where the largest values `[n]` are: exactly that share of them, at least one; of equal ones the first."""
    count = max(round(fraction * len(values)), 1)
    threshold = jnp.sort(values)[len(values) - count]
    above, level = values > threshold, values == threshold
    return above | (level & (jnp.cumsum(level) <= count - jnp.sum(above)))
