"""SalUn: random labels on the weights that matter most for the class (Fan et al., ICLR 2024, arXiv 2310.12508)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

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
from delete_jax.methods.hyperparameters import FLAG, SHARE, factory, one_of
from delete_jax.methods.random_label import random_label

if TYPE_CHECKING:
    import chex


@factory(fraction=SHARE, remain=FLAG, mask=one_of("salient", "random"))
def salun(fraction: float = 0.5, remain: bool = False, mask: str = "salient") -> Method:
    """Cross entropy to random labels; only the most salient weights change.

    Args:
      fraction: share of all weights that change: those with the largest absolute forget gradient.
      remain: also train on remaining data.
      mask: "random" changes the same share of weights, drawn at random, as a control for the choice by saliency.

    Raises:
      ValueError: fraction is outside (0, 1], remain is not a bool, or the mask is unknown.
    """
    relabel = random_label()

    def prepare(setup: Setup) -> Prepared:
        chosen = random_mask if mask == "random" else saliency_mask
        return relabel.prepare(setup)._replace(constants={"update_mask": chosen(setup, fraction)})

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
    """Computes 1 at the `fraction` of all weights with the largest absolute gradient of the forget loss, else 0; like the params.

    The gradient is the sum over batches of the batch mean's, in evaluation mode.
    """
    leaves = jax.tree.leaves(setup.teacher["params"])
    wide = functools.reduce(np.promote_types, (leaf.dtype for leaf in leaves), jnp.float32)
    gradients = (optax.tree.cast(gradient, wide) for gradient, _ in gradient_batches(setup, FORGET))
    sizes = jax.tree.leaves(functools.reduce(optax.tree.add, gradients))
    return _as_mask(setup, largest(jnp.abs(jnp.concatenate([leaf.ravel() for leaf in sizes])), fraction))


def random_mask(setup: Setup, fraction: float) -> chex.ArrayTree:
    """Draws a mask: 1 at the `fraction` of all weights, at random, else 0; like the params."""
    size = sum(leaf.size for leaf in jax.tree.leaves(setup.teacher["params"]))
    key = jax.random.fold_in(setup.key, 1)  # apart from the labels'
    return _as_mask(setup, largest(jax.random.uniform(key, (size,)), fraction))


def _as_mask(setup: Setup, chosen: chex.Array) -> chex.ArrayTree:
    leaves, tree = jax.tree.flatten(setup.teacher["params"])
    parts = jnp.split(chosen, np.cumsum([leaf.size for leaf in leaves])[:-1])
    return jax.tree.unflatten(
        tree, [part.reshape(leaf.shape).astype(leaf.dtype) for part, leaf in zip(parts, leaves, strict=True)]
    )


def largest(values: chex.Array, fraction: float) -> chex.Array:
    """Marks the largest values `[n]`: exactly that share of them, at least one; of equal ones the first."""
    count = max(round(fraction * len(values)), 1)
    threshold = jnp.sort(values)[len(values) - count]
    above, level = values > threshold, values == threshold
    return above | (level & (jnp.cumsum(level) <= count - jnp.sum(above)))
