"""ESC: take the forget features' principal directions out of the features (Lee et al., CVPR 2025, arXiv 2504.02199)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from delete_jax.compiling import same_bits
from delete_jax.methods.base import CLASSES, FORGET, Method, Setup
from delete_jax.methods.features import Head, feature_batches, find_head
from delete_jax.methods.hyperparameters import INNER_SHARE, SHARE, factory
from delete_jax.model import Variables

if TYPE_CHECKING:
    import chex

PAPER = "Lee et al., CVPR 2025, arXiv 2504.02199"


@factory(share=SHARE)
def esc(share: float = 0.015) -> Method:
    """Projects the classifier's inputs onto the complement of the forget features' first principal directions.

    Let `H = V S U^T` be the singular value decomposition of the forget features `[n, d]`, which are not centred. The kernel W `[d, k]`
    becomes `(I - U_p U_p^T) W`, with U_p the first p directions. Nothing else changes. The features can then hold less of the class
    than those of a retrained network. Remaining classes that share these directions lose accuracy too, above all when several
    classes are erased: their first direction is common to all features.

    It reads forget samples, once. There is no training, and the learning rate has no effect.
    Example: `dj.unlearn(…, forget=[3], method=dj.methods.esc(share=0.03))`.

    Args:
      share: p / d; at least one direction is removed.

    Raises:
      ValueError: share is outside (0, 1].
    """

    def edit(setup: Setup) -> Variables:
        head = find_head(setup)
        first = directions(setup, head)[:, : max(round(share * len(head.rows)), 1)]
        return head.with_rows(setup, head.rows - first @ (first.T @ head.rows))

    return Method("esc", edit=edit, needs=(CLASSES,), settings=(), paper=PAPER)


@factory(threshold=INNER_SHARE)
def esc_t(threshold: float = 0.7) -> Method:
    """Learns which entries of the forget features' principal directions to remove from the classifier's inputs.

    A mask M in [0, 1] over all entries of U (see `esc`) starts at 1. It descends `-log(1 - p_y)` on the forget samples, with y their
    own class, for features `(M U)(M U)^T h` (M and U are multiplied entry by entry). At the end, entries of M up to the threshold
    become 0 and the others 1, and the kernel W becomes `(M U)(M U)^T W`. The features are computed once.

    It reads forget samples. Example: `dj.unlearn(…, forget=[3], method=dj.methods.esc_t(), lr=1e-3, epochs=50)`.

    Args:
      threshold: for the entries of the mask.

    Raises:
      ValueError: threshold is outside (0, 1).
    """

    def edit(setup: Setup) -> Variables:
        head = find_head(setup)
        basis = directions(setup, head)
        masked = basis * (np.asarray(learnt_mask(setup, head, basis)) > threshold)
        return head.with_rows(setup, masked @ (masked.T @ head.rows))

    return Method("esc_t", edit=edit, needs=(CLASSES,), settings=("epochs", "lr", "batch_size"), paper=PAPER)


def directions(setup: Setup, head: Head) -> np.ndarray:
    """Computes the right singular vectors of the forget features as columns `[d, d]`, those of the largest values first."""
    size = len(head.rows)
    moments = sum((h.T @ h for h, _ in feature_batches(setup, head.classifier, FORGET)), np.zeros((size, size)))
    return np.linalg.eigh(moments)[1][:, ::-1]


def learnt_mask(setup: Setup, head: Head, basis: np.ndarray) -> chex.Array:
    """Learns the mask `[d, d]` by `setup.num_steps` steps of gradient descent, on the batches in order."""
    parts = zip(*feature_batches(setup, head.classifier, FORGET), strict=True)
    features, labels = (np.concatenate(part) for part in parts)
    dtype = jax.tree.leaves(setup.teacher["params"])[0].dtype
    h, u, w, b = (jnp.asarray(array, dtype) for array in (features, basis, head.rows, head.bias))
    y = jnp.asarray(labels)

    def loss(mask: chex.Array, h: chex.Array, y: chex.Array) -> chex.Array:
        masked = mask * u
        log_q = jax.nn.log_softmax((h @ masked) @ (masked.T @ w) + b[None])
        own = jax.nn.one_hot(y, log_q.shape[-1], dtype=bool)
        return -jnp.mean(jax.nn.logsumexp(jnp.where(own, -jnp.inf, log_q), axis=-1))

    def step(i: chex.Array, mask: chex.Array) -> chex.Array:
        index = (i * setup.batch_size + jnp.arange(setup.batch_size)) % len(y)
        return jnp.clip(mask - jnp.asarray(setup.strength, dtype) * jax.grad(loss)(mask, h[index], y[index]), 0, 1)

    run = lambda: jax.lax.fori_loop(0, setup.num_steps, step, jnp.ones_like(u))  # noqa: E731
    return jax.jit(run, compiler_options=same_bits())()
