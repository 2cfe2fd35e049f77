"""Gradients over whole streams with respect to the parameters, and the diagonal Fisher information."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import optax

from delete_jax.compiling import in_one_program
from delete_jax.memory import resident_bytes
from delete_jax.methods.base import Output, Setup, Stream, towards_labels
from delete_jax.model import Model, Variables, without_params

if TYPE_CHECKING:
    import chex

NEW = 1e-5
"""How much of a gradient's length must lie outside the span of others, to be more than rounding."""


def cross_entropy(logits: chex.Array, batch: Stream) -> chex.Array:
    """Computes the cross entropy to the batch's labels, per position."""
    return towards_labels(batch["label"], Output(batch, logits, None)).loss


def gradient_batches(
    setup: Setup,
    stream: str,
    batch_size: int | None = None,
    value: Callable[[chex.Array, Stream], chex.Array] = cross_entropy,
) -> Iterator[tuple[chex.ArrayTree, int]]:
    """Yields the gradient of each batch's weighted mean, and how many samples the batch has; evaluation mode, in order. Samples lie on
    the device if their images take at most half of its free memory; else each batch is read in its turn.

    Args:
      batch_size: `setup.batch_size` when None; the last batch has what is left.
      value: `(logits [*b, k], batch) -> [*b]`, whose mean it is.
    """
    columns = setup.streams[stream]
    size = batch_size or setup.batch_size
    gradient = _gradient(setup.model, setup.preprocess, value, size)
    params, rest = setup.teacher["params"], without_params(setup.teacher)
    n, fits = len(columns["label"]), columns["image"].nbytes <= resident_bytes("auto")
    placed = {name: jnp.asarray(column) for name, column in columns.items()} if fits else None
    for begin in range(0, n, size):
        if placed is None:
            part = {name: jnp.asarray(column[begin : begin + size]) for name, column in columns.items()}, 0
        else:
            part = placed, begin
        yield gradient(params, rest, *part), min(size, n - begin)


@functools.lru_cache(maxsize=16)
def _gradient(
    model: Model, preprocess: Callable, value: Callable[[chex.Array, Stream], chex.Array], size: int
) -> Callable:
    """`(params, other variables, columns, where a batch begins) -> gradient`, compiled once for a network."""

    def loss(params, rest: Variables, columns: Stream, begin: chex.Array) -> chex.Array:
        places, last = begin + jnp.arange(size), len(columns["label"]) - 1
        batch = {name: column[jnp.minimum(places, last)] for name, column in columns.items()}
        counts = (places <= last).astype(batch["weight"].dtype)  # what is filled up weighs nothing
        weight = batch["weight"] * jnp.expand_dims(counts, tuple(range(1, batch["weight"].ndim)))
        batch["weight"] = weight
        logits = model.apply({**rest, "params": params}, preprocess(batch["image"]))
        return jnp.sum(weight * value(logits, batch)) / jnp.maximum(jnp.sum(weight), 1)

    return in_one_program()(jax.grad(loss))


def mean_gradient(setup: Setup, stream: str) -> chex.ArrayTree:
    """Computes the gradient of the cross entropy's mean over all samples of the stream."""
    return mean_over_samples(gradient_batches(setup, stream), _same)


def diagonal_fisher(setup: Setup, stream: str) -> chex.ArrayTree:
    """Computes the mean over samples of `b` times the squared gradient of their batch's mean, `b` its size; like the parameters.

    With gradients of mean zero, as at the end of training, this estimates the mean squared gradient of single samples
    (the empirical Fisher information's diagonal), at the cost of one pass.
    """
    return mean_over_samples(gradient_batches(setup, stream), _squared)


def _same(leaf: chex.Array, samples: chex.Array) -> chex.Array:
    return leaf


def _squared(leaf: chex.Array, samples: chex.Array) -> chex.Array:
    return samples * jnp.square(leaf)


Value = Callable[["chex.Array", "chex.Array"], "chex.Array"]
"""`(leaf, how many samples it stands for) -> what is averaged of it`, of the same shape and dtype."""


def mean_over_samples(batches: Iterable[tuple[chex.ArrayTree, int]], value: Value) -> chex.ArrayTree:
    """Averages `value` of trees, each with the number of samples that it stands for; no two of them are held at a time."""
    total, samples = None, 0
    for tree, n in batches:
        total = _more(value, total, tree, n) if samples else _first(value, tree, n)
        samples += n
    return _times(total, 1 / samples)


@in_one_program(static_argnums=0)
def _first(value: Value, tree: chex.ArrayTree, samples: chex.Array) -> chex.ArrayTree:
    return jax.tree.map(lambda leaf: _weighted(value, leaf, samples), tree)


@in_one_program(static_argnums=0)
def _more(value: Value, total: chex.ArrayTree, tree: chex.ArrayTree, samples: chex.Array) -> chex.ArrayTree:
    return jax.tree.map(lambda before, leaf: before + _weighted(value, leaf, samples), total, tree)


def _weighted(value: Value, leaf: chex.Array, samples: chex.Array) -> chex.Array:
    n = samples.astype(leaf.dtype)
    return n * value(leaf, n)


@in_one_program()
def _times(tree: chex.ArrayTree, factor: chex.Array) -> chex.ArrayTree:
    return jax.tree.map(lambda leaf: factor.astype(leaf.dtype) * leaf, tree)


def projected(tree: chex.ArrayTree, *others: chex.ArrayTree) -> chex.ArrayTree:
    """Removes from a tree its part in the span of others of the same shapes, by Gram-Schmidt. Of one that is, up to rounding, in the span
    of those before it, nothing more is removed."""
    basis: list[chex.ArrayTree] = []
    for other in others:
        new = functools.reduce(_without, basis, other)
        norm = optax.tree.norm(new)
        counts = norm > NEW * optax.tree.norm(other)
        basis.append(optax.tree.scale(jnp.where(counts, 1 / jnp.where(counts, norm, 1), 0), new))
    return functools.reduce(_without, basis, tree)


def _without(tree: chex.ArrayTree, unit: chex.ArrayTree) -> chex.ArrayTree:
    return optax.tree.add_scale(tree, -optax.tree.vdot(tree, unit), unit)
