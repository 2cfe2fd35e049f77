"""Source-free: random features, labelled by the classifier itself, stand in for all data (TMLR 2026)."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from delete_jax.methods.base import FORGET, REMAIN, Context, Method, Output, Setup
from delete_jax.methods.classifier import find_bias, replace_leaf
from delete_jax.methods.delete import delete
from delete_jax.methods.features import Head, find_head, unseen
from delete_jax.methods.hyperparameters import factory
from delete_jax.model import Variables


@factory()
def source_free() -> Method:
    """Trains the classifier alone, on random features that it labels itself: no sample is read.

    Each step draws features `h ~ N(0, I)` `[b, d]`. Those that the original's classifier gives to an erased class are the
    forget samples, the others the remaining ones, and the kernel and the bias descend `delete(remain=True)`'s loss on them.

    Of the forget samples only the shape and the number count: with the epochs and the batch size it makes the number of
    steps. The layers before the classifier stay, so only the predictions forget.
    Example: `dj.unlearn(…, forget=[3], method=dj.methods.source_free(), lr=1e-1)`.
    """
    return Method(
        "source_free",
        edit=_edit,
        settings=("epochs", "lr", "batch_size", "seed"),
        paper="A Universal Source-Free Class Unlearning Framework via Synthetic Embeddings, TMLR 2026",
    )


def _edit(setup: Setup) -> Variables:
    setup = unseen(setup)
    head = find_head(setup)
    params = setup.teacher["params"]
    place = find_bias(setup, head.classifier)
    kernel, shift = train(setup, head, has_bias=place is not None)
    params = head.classifier.with_rows(params, kernel)
    if place is not None:
        params = replace_leaf(params, place, lambda leaf: leaf + shift.reshape(leaf.shape).astype(leaf.dtype))
    return {**setup.teacher, "params": params}


def train(setup: Setup, head: Head, has_bias: bool) -> tuple[chex.Array, chex.Array]:
    """The kernel `[d, k]` after `setup.num_steps` steps of gradient descent, and what is to be added to the bias `[k]`."""
    dtype = head.classifier.rows(setup.teacher["params"]).dtype
    rows, bias = jnp.asarray(head.rows, dtype), jnp.asarray(head.bias, dtype)
    erase = jnp.isin(jnp.arange(setup.num_classes), jnp.asarray(setup.forget))
    rate, rule = jnp.asarray(setup.strength, dtype), delete(remain=True)

    def loss(head: tuple[chex.Array, chex.Array], h: chex.Array) -> chex.Array:
        kernel, shift = head
        original, student = h @ rows + bias[None], h @ kernel + (bias + shift)[None]
        output = Output({"erase": jnp.broadcast_to(erase, original.shape)}, student, original)
        terms = rule.loss({FORGET: output, REMAIN: output}, Context())
        is_forgotten = erase[jnp.argmax(original, -1)]
        chosen = {FORGET: is_forgotten.astype(dtype), REMAIN: (~is_forgotten).astype(dtype)}
        return sum(jnp.sum(w * terms[name].loss) / jnp.maximum(jnp.sum(w), 1) for name, w in chosen.items())

    def step(i: chex.Array, head: tuple[chex.Array, chex.Array]) -> tuple[chex.Array, chex.Array]:
        h = jax.random.normal(jax.random.fold_in(setup.key, i), (setup.batch_size, len(rows)), dtype)
        kernel, shift = jax.grad(loss)(head, h)
        return head[0] - rate * kernel, head[1] - rate * shift if has_bias else head[1]

    return jax.jit(lambda: jax.lax.fori_loop(0, setup.num_steps, step, (rows, jnp.zeros_like(bias))))()
