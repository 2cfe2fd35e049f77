"""Gradients of the whole cross entropy with respect to the parameters, and the diagonal Fisher information."""

from __future__ import annotations

from collections.abc import Iterator

import chex
import jax
import jax.numpy as jnp

from delete_jax.methods.base import Output, Setup, towards_labels


def gradient_batches(setup: Setup, stream: str, batch_size: int | None = None) -> Iterator[chex.ArrayTree]:
    """The gradient of each batch's mean cross entropy to the labels, evaluation mode, in the stream's order.

    Args:
      batch_size: `setup.batch_size` when None; the last batch has what is left.
    """
    columns = setup.streams[stream]
    params = setup.teacher["params"]

    def loss(params, batch):
        logits = setup.model.apply({**setup.teacher, "params": params}, setup.preprocess(batch["image"]))
        values = towards_labels(batch["label"], Output(batch, logits, None)).loss
        return jnp.sum(batch["weight"] * values) / jnp.maximum(jnp.sum(batch["weight"]), 1)

    gradient = jax.jit(jax.grad(loss))
    size = batch_size or setup.batch_size
    n = len(columns["label"])
    for begin in range(0, n, size):
        index = jnp.minimum(jnp.arange(begin, begin + size), n - 1)  # one shape: what is filled up weighs nothing
        batch = {name: jnp.asarray(column)[index] for name, column in columns.items()}
        counts = (jnp.arange(begin, begin + size) < n).astype(batch["weight"].dtype)
        weight = batch["weight"] * jnp.expand_dims(counts, tuple(range(1, batch["weight"].ndim)))
        yield gradient(params, batch | {"weight": weight})


def diagonal_fisher(setup: Setup, stream: str) -> chex.ArrayTree:
    """Mean over batches of `b` times the squared gradient of the batch mean, like the parameters.

    With gradients of mean zero, as at the end of training, this estimates the mean squared gradient of single samples
    (the empirical Fisher information's diagonal), at the cost of one pass.
    """
    total, batches = None, 0
    for gradient in gradient_batches(setup, stream):
        squared = jax.tree.map(lambda leaf: setup.batch_size * jnp.square(leaf), gradient)
        total = squared if total is None else jax.tree.map(jnp.add, total, squared)
        batches += 1
    return jax.tree.map(lambda leaf: leaf / batches, total)
