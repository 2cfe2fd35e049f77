"""Fisher forgetting: noise where the remaining data do not mind (Golatkar et al., CVPR 2020, arXiv 1911.04933)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from delete_jax.compiling import in_one_program
from delete_jax.methods.base import REMAIN, Method, Setup
from delete_jax.methods.classifier import find_bias, find_classifier
from delete_jax.methods.gradients import diagonal_fisher
from delete_jax.methods.hyperparameters import factory
from delete_jax.model import Variables

if TYPE_CHECKING:
    import chex


@factory()
def fisher() -> Method:
    """Adds Gaussian noise of variance `strength / (F + 1e-8)`, with F the diagonal Fisher information on remaining data.

    `1 / (F + 1e-8)` is clipped to at most 1e3, and to 1e2 in the classifier. There and in normalisations, the variance is ten times
    as large. There is no training: `strength` is the learning rate.
    """
    return Method(
        "fisher",
        streams=(REMAIN,),
        edit=_edit,
        settings=("lr", "batch_size", "seed"),
        paper="Golatkar et al., CVPR 2020, arXiv 1911.04933",
    )


def _edit(setup: Setup) -> Variables:
    params = setup.teacher["params"]
    classifier = find_classifier(setup)
    layer = (classifier.place, find_bias(setup, classifier))
    information = jax.tree.leaves(diagonal_fisher(setup, REMAIN))
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    last = tuple(path in layer for path, _ in leaves)
    noisy = _noisy([leaf for _, leaf in leaves], information, setup.strength, setup.key, last)
    return {**setup.teacher, "params": jax.tree.unflatten(tree, noisy)}


@in_one_program(static_argnums=4)
def _noisy(
    leaves: list[chex.Array],
    information: list[chex.Array],
    strength: chex.Array,
    key: chex.PRNGKey,
    last: tuple[bool, ...],
) -> list[chex.Array]:
    """The parameters with noise. `last`: whether each is one of the classifier's."""
    noisy = []
    for i, (leaf, fisher, is_last) in enumerate(zip(leaves, information, last, strict=True)):
        variance = strength.astype(fisher.dtype) * jnp.minimum(1 / (fisher + 1e-8), 1e2 if is_last else 1e3)
        variance = variance * (10 if is_last or leaf.ndim == 1 else 1)
        noise = jax.random.normal(jax.random.fold_in(key, i), leaf.shape, leaf.dtype)
        noisy.append(leaf + (jnp.sqrt(variance) * noise).astype(leaf.dtype))
    return noisy
