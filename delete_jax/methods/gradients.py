"""Gradients over whole streams with respect to the parameters, and the diagonal Fisher information."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import optax

from delete_jax.compiling import same_bits
from delete_jax.methods.base import Output, Setup, Stream, towards_labels
from delete_jax.model import Model, Variables

if TYPE_CHECKING:
    import chex


def cross_entropy(logits: chex.Array, batch: Stream) -> chex.Array:
    """Computes the cross entropy to the batch's labels, per position."""
    return towards_labels(batch["label"], Output(batch, logits, None)).loss


def gradient_batches(
    setup: Setup,
    stream: str,
    batch_size: int | None = None,
    value: Callable[[chex.Array, Stream], chex.Array] = cross_entropy,
) -> Iterator[tuple[chex.ArrayTree, int]]:
    """Yields the gradient of each batch's weighted mean, and how many samples the batch has; evaluation mode, in order.

    Args:
      batch_size: `setup.batch_size` when None; the last batch has what is left.
      value: `(logits [*b, k], batch) -> [*b]`, whose mean it is.
    """
    columns = {name: jnp.asarray(column) for name, column in setup.streams[stream].items()}
    gradient = _gradient(setup.model, setup.preprocess, value)
    params, rest = setup.teacher["params"], {name: leaf for name, leaf in setup.teacher.items() if name != "params"}
    size = batch_size or setup.batch_size
    n = len(columns["label"])
    for begin in range(0, n, size):
        index = jnp.minimum(jnp.arange(begin, begin + size), n - 1)  # one shape: what is filled up weighs nothing
        batch = {name: column[index] for name, column in columns.items()}
        counts = (jnp.arange(begin, begin + size) < n).astype(batch["weight"].dtype)
        weight = batch["weight"] * jnp.expand_dims(counts, tuple(range(1, batch["weight"].ndim)))
        yield gradient(params, rest, batch | {"weight": weight}), min(size, n - begin)


@functools.lru_cache(maxsize=16)
def _gradient(model: Model, preprocess: Callable, value: Callable[[chex.Array, Stream], chex.Array]) -> Callable:
    """`(params, other variables, batch) -> gradient`, compiled once for a network."""

    def loss(params, rest: Variables, batch: Stream) -> chex.Array:
        logits = model.apply({**rest, "params": params}, preprocess(batch["image"]))
        return jnp.sum(batch["weight"] * value(logits, batch)) / jnp.maximum(jnp.sum(batch["weight"]), 1)

    return jax.jit(jax.grad(loss), compiler_options=same_bits())


def mean_gradient(setup: Setup, stream: str) -> chex.ArrayTree:
    """Computes the gradient of the cross entropy's mean over all samples of the stream."""
    return mean_over_samples(gradient_batches(setup, stream))


def diagonal_fisher(setup: Setup, stream: str) -> chex.ArrayTree:
    """Computes the mean over samples of `b` times the squared gradient of their batch's mean, `b` its size; like the parameters.

    With gradients of mean zero, as at the end of training, this estimates the mean squared gradient of single samples
    (the empirical Fisher information's diagonal), at the cost of one pass.
    """
    return mean_over_samples(
        (jax.tree.map(lambda leaf, b=samples: b * jnp.square(leaf), gradient), samples)
        for gradient, samples in gradient_batches(setup, stream)
    )


def mean_over_samples(batches: Iterable[tuple[chex.ArrayTree, int]]) -> chex.ArrayTree:
    """Averages trees, each with the number of samples that it stands for; no two of them are held at a time."""

    def add(a: tuple[chex.ArrayTree, int], b: tuple[chex.ArrayTree, int]) -> tuple[chex.ArrayTree, int]:
        return optax.tree.add(a[0], b[0]), a[1] + b[1]

    total, samples = functools.reduce(add, ((optax.tree.scale(n, tree), n) for tree, n in batches))
    return optax.tree.scale(1 / samples, total)
