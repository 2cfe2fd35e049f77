"""Influence unlearning with WoodFisher (Izzo et al., arXiv 2002.10077; Singh and Alistarh, arXiv 2004.14340)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from delete_jax.compiling import in_one_program
from delete_jax.methods.base import FORGET, REMAIN, Method, Setup
from delete_jax.methods.gradients import gradient_batches, mean_gradient
from delete_jax.methods.hyperparameters import FLAG, factory
from delete_jax.model import Variables

if TYPE_CHECKING:
    import chex

SAMPLES, BYTES = 1000, 2**30


@factory(remain=FLAG)
def wood_fisher(remain: bool = True) -> Method:
    """One Newton step, `theta + strength H^-1 gradient`, with the inverse Fisher information as `H^-1`.

    The Fisher information comes from up to 1000 single remaining samples, as many as fit in 1 GiB. The gradient is that of the
    forget samples' part of the training loss minus that of the remaining ones. There is no training: `strength` is the learning
    rate.

    Args:
      remain: if False, take one ascent step on the forget samples instead.

    Raises:
      ValueError: remain is not a bool.
    """
    return Method(
        "wood_fisher",
        streams=(FORGET, REMAIN) if remain else (FORGET,),
        edit=functools.partial(_edit, remain=remain),
        settings=("lr", "batch_size"),
        paper="Izzo et al., AISTATS 2021, arXiv 2002.10077; Singh and Alistarh, NeurIPS 2020, arXiv 2004.14340",
    )


def _edit(setup: Setup, remain: bool) -> Variables:
    direction = _flat(mean_gradient(setup, FORGET))
    if remain:
        forgotten, kept = (len(setup.streams[name]["label"]) for name in (FORGET, REMAIN))
        share = forgotten / (forgotten + kept)
        kept_direction = _flat(mean_gradient(setup, REMAIN))
        direction = inverse_fisher(setup, share * (direction - kept_direction))
    return {**setup.teacher, "params": _moved(setup.teacher["params"], direction, setup.strength)}


@in_one_program()
def _flat(tree: chex.ArrayTree) -> chex.Array:
    return ravel_pytree(tree)[0]


@in_one_program()
def _moved(params: chex.ArrayTree, direction: chex.Array, strength: chex.Array) -> chex.ArrayTree:
    flat, restore = ravel_pytree(params)
    return restore(flat + strength.astype(flat.dtype) * direction)


def inverse_fisher(setup: Setup, vector: jax.Array) -> jax.Array:
    """Computes `(I + G^T G / n)^-1 v` for a vector `[p]` like the flattened parameters; the rows of `G` are n single gradients.

    By the Woodbury identity, `v - G^T (n I + G G^T)^-1 G v`: exact. The published recursion over samples, which keeps one
    vector instead of `G`, is not.
    """
    n = min(SAMPLES, len(setup.streams[REMAIN]["label"]), max(BYTES // vector.nbytes, 1))
    some = {name: column[:n] for name, column in setup.streams[REMAIN].items()}
    batches = gradient_batches(setup._replace(streams={REMAIN: some}), REMAIN, batch_size=1)
    return _solved(jnp.stack([_flat(gradient) for gradient, _ in batches]), vector)


@in_one_program()
def _solved(gradients: chex.Array, vector: chex.Array) -> chex.Array:
    n = len(gradients)
    with jax.default_matmul_precision("highest"):
        inner = n * jnp.eye(n, dtype=gradients.dtype) + gradients @ gradients.T
        return vector - gradients.T @ jnp.linalg.solve(inner, gradients @ vector)
