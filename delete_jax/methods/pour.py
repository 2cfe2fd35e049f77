"""POUR: take the class's direction out of the features, in closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from delete_jax.methods.base import CLASSES, FORGET, Method, Setup
from delete_jax.methods.classifier import Classifier, find_classifier, named
from delete_jax.methods.hyperparameters import factory
from delete_jax.model import Variables

if TYPE_CHECKING:
    import chex


@factory()
def pour() -> Method:
    """Projects the classifier's inputs onto the complement of the erased classes' rows, `w_u w_u^T / |w_u|^2`.

    Only the classifier's kernel changes, and no data are read. It can follow any other method (`project`). There is no training, and
    the learning rate has no effect.
    """

    def edit(setup: Setup) -> Variables:
        return project(setup.teacher, setup.forget, setup.num_classes, find_classifier(setup))

    return Method("pour", streams=(FORGET,), edit=edit, needs=(CLASSES,), settings=(), paper="POUR, CVPR 2026")


def project(
    variables: Variables,
    forget: tuple[int, ...],
    num_classes: int,
    classifier: tuple[str, ...] | Classifier | None = None,
) -> Variables:
    """Projects the features that a network's classifier sees to the complement of the span of the rows of `forget`.

    Args:
      variables: the network's; not changed.
      forget: the classes whose rows are taken out.
      num_classes: k, of the classifier's kernel `[..., d, k]` or `[k, d, ...]`.
      classifier: the names that lead to the classifier's layer in the parameters, or what `find_classifier` found.

    Raises:
      ValueError: the classifier is not said, or not there.
    """
    params = variables["params"]
    if classifier is None:
        raise ValueError(
            "project needs the classifier's place, such as classifier=('head',): it is not told by its shape"
        )
    found = classifier if isinstance(classifier, Classifier) else named(params, num_classes, classifier)[0]
    flat = found.rows(params)
    basis = span(flat, forget)
    with jax.default_matmul_precision("highest"):
        projected = flat - basis @ (basis.T @ flat)
    return {**variables, "params": found.with_rows(params, projected)}


def span(rows: chex.Array, forget: tuple[int, ...]) -> chex.Array:
    """Computes an orthonormal basis `[d, r]` of the span of the rows of `forget` in a kernel `[d, k]`."""
    basis, sizes, _ = jnp.linalg.svd(rows[:, jnp.asarray(forget)], full_matrices=False)
    # a row that is 0, such as one projected before, spans nothing
    return jnp.where(sizes > 1e-6 * jnp.linalg.norm(rows), basis, 0)
