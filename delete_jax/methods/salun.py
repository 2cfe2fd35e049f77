"""SalUn: random labels on the weights that matter most for the class (Fan et al., ICLR 2024, arXiv 2310.12508)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.compiling import in_one_program
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
    total = functools.reduce(jnp.add, (_flat(gradient) for gradient, _ in gradient_batches(setup, FORGET)))
    return _mask(setup.teacher["params"], jnp.abs(total), fraction)


def random_mask(setup: Setup, fraction: float) -> chex.ArrayTree:
    """Draws a mask: 1 at the `fraction` of all weights, at random, else 0; like the params."""
    size = sum(leaf.size for leaf in jax.tree.leaves(setup.teacher["params"]))
    key = jax.random.fold_in(setup.key, 1)  # apart from the labels'
    return _mask(setup.teacher["params"], jax.random.uniform(key, (size,)), fraction)


@in_one_program()
def _flat(tree: chex.ArrayTree) -> chex.Array:
    """All numbers of a tree, in float32 or in what is wider."""
    leaves = jax.tree.leaves(tree)
    wide = functools.reduce(np.promote_types, (leaf.dtype for leaf in leaves), jnp.float32)
    return jnp.concatenate([leaf.ravel().astype(wide) for leaf in leaves])


@in_one_program(static_argnums=2)
def _mask(params: chex.ArrayTree, values: chex.Array, fraction: float) -> chex.ArrayTree:
    """1 at the largest values, else 0; like the params."""
    leaves, tree = jax.tree.flatten(params)
    parts = jnp.split(largest(values, fraction), np.cumsum([leaf.size for leaf in leaves])[:-1])
    return jax.tree.unflatten(
        tree, [part.reshape(leaf.shape).astype(leaf.dtype) for part, leaf in zip(parts, leaves, strict=True)]
    )


def largest(values: chex.Array, fraction: float) -> chex.Array:
    """Marks the largest values `[n]`: exactly that share of them, at least one; of equal ones the first."""
    count = max(round(fraction * len(values)), 1)
    threshold = jnp.sort(values)[len(values) - count]
    above, level = values > threshold, values == threshold
    return above | (level & (jnp.cumsum(level) <= count - jnp.sum(above)))
