"""POUR: take the class's direction out of the features, in closed form."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from delete_jax.methods.base import FORGET, Method, Setup, find_classifier, replace_leaf
from delete_jax.methods.hyperparameters import factory
from delete_jax.model import Variables


@factory()
def pour() -> Method:
    """Projects the classifier's inputs onto the complement of the erased classes' rows, `w_u w_u^T / |w_u|^2`.

    That is a change of the classifier's kernel alone, so no data are looked at; it can follow any other method
    (`project`). No training, and the learning rate plays no part.
    """

    def edit(setup: Setup) -> Variables:
        return project(setup.teacher, setup.forget, setup.num_classes, setup.classifier)

    return Method("pour", streams=(FORGET,), edit=edit, settings=(), paper="POUR, CVPR 2026")


def project(
    variables: Variables, forget: tuple[int, ...], num_classes: int, classifier: tuple[str, ...] | None = None
) -> Variables:
    """The network whose classifier sees features without the span of the rows of `forget`.

    Args:
      variables: the network's; not changed.
      forget: the classes whose rows are taken out.
      num_classes: k, of the classifier's kernel `[..., d, k]`.
      classifier: the names that lead to the classifier's layer in the parameters; searched for when None.

    Raises:
      ValueError: the classifier cannot be found (see `methods.base.find_classifier`).
    """

    def change(kernel: chex.Array) -> chex.Array:
        flat = kernel.reshape(-1, num_classes)
        basis, sizes, _ = jnp.linalg.svd(flat[:, jnp.asarray(forget)], full_matrices=False)
        # a row that is 0, such as one projected before, spans nothing
        basis = jnp.where(sizes > 1e-6 * jnp.linalg.norm(flat), basis, 0)
        with jax.default_matmul_precision("highest"):
            return (flat - basis @ (basis.T @ flat)).reshape(kernel.shape).astype(kernel.dtype)

    path, _ = find_classifier(variables["params"], num_classes, classifier)
    return {**variables, "params": replace_leaf(variables["params"], path, change)}
